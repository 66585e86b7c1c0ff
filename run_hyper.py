"""The search: python run_hyper.py --params_file=FILE --model=TIGER --dataset=ml-100k"""

import sys


def main(argv=None):
    """As `recbole_gr.search.command.main`."""
    from recbole_gr.search.command import main as search_main

    return search_main(argv)


if __name__ == "__main__":
    sys.exit(main())
