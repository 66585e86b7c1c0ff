"""Miniatures of the raw files that `recbole_gr.convert.command` reads."""

import gzip
import json
import zipfile

import numpy as np

WORDS = "night river stone garden winter letter shadow train island voice".split()


def interactions(n_users=30, n_items=12, seed=0):
    """(user, item, rating, time) of random walks, each user with 6 different items."""
    rng = np.random.default_rng(seed)
    for user in range(n_users):
        for step, item in enumerate(rng.permutation(n_items)[:6].tolist()):
            yield user, item, int(rng.integers(1, 6)), 1_300_000_000 + user + 86_400 * step


def title(item):
    return f"{WORDS[item % 10]} {WORDS[item // 10 % 10]} of {WORDS[-1 - item % 10]}"


def write(path, lines):
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def amazon(folder, year=2014, broken=False, n_items=12):
    """Reviews and metadata of a category; `broken` adds 7 bad reviews and 2 bad products."""
    reviews = [
        json.dumps({"reviewerID": f"A{u}", "asin": f"B{i:03}", "overall": float(r),
                    "unixReviewTime": t, "reviewText": "good\tgood"})
        for u, i, r, t in interactions(n_items=n_items)
    ]  # fmt: skip
    products = []
    for item in [*range(n_items), 900]:  # nobody took item 900
        product = {
            "asin": f"B{item:03}",
            "title": f'"{title(item)}" &amp;\tmore\n\0',
            "brand": "OPI",
        }
        names = ["Beauty", "Hair Care", f"Kind {item % 3}"]
        if year == 2014:
            product |= {"categories": [names], "price": 1.5 + item, "description": "It's <b>so</b>"}
            product["related"] = {"also_bought": ["B001"]}
            products.append(repr(product))
        else:
            product |= {"category": names, "price": "$1,005.50", "description": ["It's", "so"]}
            product |= {"feature": ["soft"], "also_buy": ["B001"]}
            products.append(json.dumps(product))
    if broken:
        good = json.loads(reviews[0])
        reviews[3:3] = [
            reviews[0][:40],
            "[1, 2]",
            json.dumps({key: good[key] for key in good if key != "asin"}),
            json.dumps({**good, "overall": "5"}),
            json.dumps({**good, "unixReviewTime": float("nan")}),
            json.dumps({**good, "reviewerID": 7}),
            json.dumps({**good, "asin": "a\tb"}),
        ]
        products[1:1] = ["{'asin': 'B001', 'title': open('x')}", "(" * 500]
    prefix = "reviews_Beauty_5" if year == 2014 else "Beauty_5"
    return (
        write(folder / f"{prefix}.json.gz", reviews),
        write(folder / "meta_Beauty.json.gz", products),
    )


def amazon2023(folder, zipped=True, n_items=12):
    """Reviews of variants of the products, in milliseconds, and metadata of the products."""
    reviews = [
        json.dumps({"rating": float(r), "title": "Good", "text": "good\tgood", "images": [],
                    "asin": f"V{u % 3}{i:03}", "parent_asin": f"B{i:03}", "user_id": f"A{u}",
                    "timestamp": 1000 * t + u * 37 % 1000, "helpful_vote": 0,
                    "verified_purchase": True})
        for u, i, r, t in interactions(n_items=n_items)
    ]  # fmt: skip
    products = [
        json.dumps({"main_category": "All Beauty" if item else None, "title": title(item),
                    "average_rating": 4.5, "rating_number": 10,
                    "features": ["It's <b>so</b>", "so"],
                    "description": [], "price": 1.5 + item if item % 2 else None, "images": [],
                    "videos": [], "store": "OPI", "categories": ["Beauty", "Hair Care"],
                    "details": {"Brand": "OPI", "Unit Count": "1.0 Ounce"},
                    "parent_asin": f"B{item:03}", "bought_together": None})
        for item in [*range(n_items), 900]
    ]  # fmt: skip
    end = ".jsonl.gz" if zipped else ".jsonl"
    names = (f"All_Beauty{end}", f"meta_All_Beauty{end}")
    return tuple(write(folder / name, lines) for name, lines in zip(names, (reviews, products)))


def movielens(folder, kind):
    """`ml-100k.zip`, `ml-1m.zip` or `ml-latest-small.zip`."""
    rows, items, users = list(interactions()), range(12), range(30)
    if kind == "ml-100k":
        flags = [["0"] * 19 for _ in items]
        for item in items:
            flags[item][4] = flags[item][15] = "1"
        files = {
            "u.data": ["\t".join(map(str, row)) for row in rows],
            "u.item": [f"{i}|Été {title(i)} (1995)|01-Jan-1995||http://x|" + "|".join(flags[i])
                       for i in items],
            "u.user": [f"{u}|24|M|technician|85711" for u in users],
        }  # fmt: skip
    elif kind == "ml-1m":
        files = {
            "ratings.dat": ["::".join(map(str, row)) for row in rows],
            "movies.dat": [f"{i}::Été {title(i)} (1995)::Children's|Sci-Fi" for i in items],
            "users.dat": [f"{u}::F::1::10::48067" for u in users],
        }
    else:
        files = {
            "ratings.csv": ["userId,movieId,rating,timestamp", *(",".join(map(str, r))
                                                                 for r in rows)],
            "movies.csv": ["movieId,title,genres", *(f'{i},"Été, {title(i)} (1995)",'
                                                     "Children's|Sci-Fi" for i in items)],
        }  # fmt: skip
    path = folder / f"{kind}.zip"
    encoding = "utf-8" if kind.startswith("ml-latest") else "latin-1"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in files.items():
            archive.writestr(f"{kind}/{name}", "".join(f"{x}\n" for x in lines).encode(encoding))
    return path


def table(folder):
    """`events.csv` and `products.csv` of a shop, with names of its own."""
    events = [f"{u},sku {i},{r},{t}" for u, i, r, t in interactions()]
    products = [f'sku {i},"{title(i)}, ""new""\nedition",red' for i in range(12)]
    return (
        write(folder / "events.csv", ["uid,sku,stars,ts", *events]),
        write(folder / "products.csv", ["sku,name,colour", *products]),
    )
