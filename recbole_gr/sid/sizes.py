"""How many codes a level has where nobody says so."""

AUTO = "auto"  # codebook_size: by the catalogue
LARGEST = 256  # of it
_ITEMS_PER_CODE = 4  # at least, on the first level


def auto_size(n_items: int, levels: int) -> int:
    """Codes of each level that suit a catalogue: 256, or fewer where there are few items.

    SIDs are of use where items share codes: with as many codes as items the first level tells them
    all apart, the others carry nothing, and a recommender learns of each item alone. So a code of
    the first level has at least four items on average; and the codes of all levels make twice as
    many SIDs as there are items, or more. Both are powers of two, as OPQ needs.

    Args:
        n_items (int): that the tokenizer learns from.
        levels (int): of a SID.

    Returns:
        int: 256 from 1,024 items on; of three levels 32 for 200 items, 8 for 60, 4 for 20.
    """
    size = max(2 ** ((n_items // _ITEMS_PER_CODE).bit_length() - 1), 2) if n_items > 3 else 2
    while size**levels < 2 * n_items and size < LARGEST:
        size *= 2
    return min(size, LARGEST)
