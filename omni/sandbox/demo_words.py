"""Vocabulary of the demo company. Persons are invented; mail domains are reserved ones (RFC 2606)."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """
    Anna Ben Carla David Elif Finn Greta Hannes Ida Jonas Klara Leon Mara Noah Olga Paul Rosa Samuel
    Tessa Uwe Vera Willem Yara Zoe Amir Berta Cem Doris Emil Frieda Gustav Helena Ilse Jan Katrin
    Lukas Mira Nils Oskar Petra Quirin Ronja Stefan Tilda Ulla Viktor Wanda Xenia Yusuf Anton
    """
)
LAST_NAMES = _words(
    """
    Adler Bauer Conrad Dietz Ebert Fuchs Graf Hahn Imhof Jansen Keller Lorenz Maurer Nowak Otto
    Peters Quast Richter Seidel Thoma Ulrich Vogt Weber Yilmaz Ziegler Arnold Brandt Czerny Dorn
    Engel Franke Gruber Heinze Jung Kaiser Lehmann Meinert Neumann Oswald Pohl Reuter Sommer Tietz
    Urban Vogel Winter Zander Albers Busch Kraft
    """
)
MAIL_DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example")
CITIES = (
    ("Berlin", "DE", "BE", "10115"),
    ("Hamburg", "DE", "HH", "20095"),
    ("Munich", "DE", "BY", "80331"),
    ("Cologne", "DE", "NW", "50667"),
    ("Leipzig", "DE", "SN", "04109"),
    ("Frankfurt", "DE", "HE", "60311"),
    ("Stuttgart", "DE", "BW", "70173"),
    ("Bremen", "DE", "HB", "28195"),
    ("Vienna", "AT", "9", "1010"),
    ("Graz", "AT", "6", "8010"),
    ("Zurich", "CH", "ZH", "8001"),
    ("Basel", "CH", "BS", "4001"),
    ("Utrecht", "NL", "UT", "3511"),
)
CITY_WEIGHTS = (0.19, 0.13, 0.12, 0.09, 0.07, 0.06, 0.05, 0.04, 0.08, 0.04, 0.05, 0.03, 0.05)

COMPANY_FIRST = _words(
    """
    Nordlicht Falken Rhein Alpen Hansa Eichen Silber Morgen Berg Hafen Linden Sonnen Wald Stern
    Kiesel Möwen Ahorn Granit Quellen Weiden
    """
)
COMPANY_SECOND = (
    "Bau",
    "Logistik",
    "Gärten",
    "Hotels",
    "Werke",
    "Energie",
    "Klinik",
    "Events",
    "Touren",
    "Labor",
)
COMPANY_FORMS = ("GmbH", "AG", "KG", "GmbH & Co. KG", "B.V.")

CATEGORIES = {
    "Jackets": (("Rain Jacket", "Down Jacket", "Softshell", "Parka", "Fleece"), 11_900),
    "Trousers": (("Trekking Trousers", "Work Trousers", "Shorts", "Leggings"), 7_900),
    "Shirts": (("Merino Shirt", "Flannel Shirt", "Base Layer", "Polo"), 4_900),
    "Footwear": (("Hiking Boots", "Trail Shoes", "Sandals", "Wool Socks"), 10_900),
    "Backpacks": (("Daypack", "Trekking Pack", "Hip Bag", "Duffel"), 8_900),
    "Camping": (("Two-Person Tent", "Sleeping Bag", "Camp Stove", "Sleeping Mat", "Headlamp"), 9_900),
    "Accessories": (("Water Bottle", "Beanie", "Gloves", "Belt", "Trekking Poles"), 2_900),
}
SERIES = _words(
    """
    Arlberg Bora Corvus Drift Eiger Fjord Gale Harz Inari Juniper Karst Lofoten Mistral Nebel Oxer
    Passat Quill Rhön Sierra Tundra
    """
)
BRANDS = (
    "Nordkant",
    "Wetterfest",
    "Talweg",
    "Feldhaus",
    "Kiefer & Co",
    "Bergahn",
    "Lichtung",
    "Steinpilz",
    "Ostwind",
    "Hauslinie",
)
REFUND_NOTES = (
    "Too small",
    "Too large",
    "Damaged in transit",
    "Not as described",
    "Changed my mind",
    "Arrived too late",
)

GOOD = (
    "The {item} fits perfectly and feels well made.",
    "I wore the {item} for a week in the mountains and it stayed dry.",
    "Delivery was quick and the parcel was packed with care.",
    "Great quality for the price, I would buy it again.",
    "The material is soft and still looks new after several washes.",
    "Customer service answered within an hour and was very helpful.",
    "Exactly as described, the colour is lovely.",
    "My favourite {item} so far, light and comfortable.",
    "Arrived a day earlier than promised.",
    "The zips and seams are excellent.",
)
MIXED = (
    "The {item} is fine, but the sizing runs a little small.",
    "Good product, though the delivery took longer than expected.",
    "It does its job, nothing more and nothing less.",
    "The colour is a bit different from the pictures.",
    "Okay for the price, I expected slightly better stitching.",
    "Comfortable, but the pockets are too small for my taste.",
)
BAD = (
    "The {item} broke after two weeks and I am very disappointed.",
    "The seam came apart on the first day.",
    "Delivery was two weeks late and nobody answered my e-mails.",
    "Poor quality, it looks nothing like the pictures.",
    "The size was completely wrong and the return was a hassle.",
    "It leaks in light rain, useless for hiking.",
    "I am still waiting for my refund, terrible service.",
    "The buckle is defective and the strap keeps slipping.",
    "Cheap material with a strong chemical smell.",
)
TITLES = {
    "good": ("Love it", "Highly recommended", "Great quality", "Very happy", "Perfect fit"),
    "mixed": ("It is okay", "Decent", "Good with small flaws", "As expected"),
    "bad": ("Disappointed", "Do not buy", "Broke quickly", "Poor quality", "Never again"),
}
