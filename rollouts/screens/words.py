"""Texts on the screens. Labels that resemble each other stand in one family on purpose: they are hard negatives."""

from __future__ import annotations

import random

FILE_STEMS = ("Report", "Budget", "Invoice", "Notes", "Agenda", "Draft", "Summary", "Contract", "Plan", "Slides")
FILE_TAILS = ("", " 1", " 2", " 2024", " 2025", " final", " old", " copy", " (1)", " new")
FILE_TYPES = (".pdf", ".txt", ".docx", ".png", ".csv")
FIRST_NAMES = (
    "Ada",
    "Ben",
    "Clara",
    "David",
    "Elena",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Liam",
    "Mina",
)
LAST_NAMES = ("Abel", "Berg", "Cohen", "Diaz", "Evans", "Fischer", "Gupta", "Hansen", "Ito", "Jones", "Kaya", "Lopez")
FIELDS = (
    "First name", "Last name", "Full name", "E-mail", "Repeat e-mail", "Phone", "Mobile phone", "Street", "City",
    "Postal code", "Country", "Company", "Job title", "Password", "Repeat password", "Date of birth",
)  # fmt: skip
OPTIONS = (
    "Dark mode", "Large text", "Wi-Fi", "Wi-Fi calling", "Bluetooth", "Airplane mode", "Location", "Location history",
    "Auto update", "Auto save", "Sounds", "Key sounds", "Vibration", "Spell check", "Grammar check", "Private mode",
    "Battery saver", "Data saver", "Show hidden files", "Show file types", "Sync contacts", "Sync photos",
)  # fmt: skip
CHOICES = ("Daily", "Weekly", "Monthly", "Never", "Small", "Medium", "Large", "English", "German", "French", "Spanish")
FOLDERS = (
    "Documents", "Downloads", "Pictures", "Desktop", "Videos", "Recent", "Shared", "Archive", "Projects", "Templates",
)  # fmt: skip
TOPICS = (
    "News", "Sports", "Weather", "Science", "Culture", "Travel", "Business", "Technology", "Health", "Food", "World",
    "Opinion", "Local news", "World news", "Film", "Books",
)  # fmt: skip
PRODUCTS = ("Desk lamp", "Floor lamp", "Oak table", "Side table", "Tea pot", "Tea cups", "Wool scarf", "Silk scarf",
            "Travel bag", "Hand bag", "Wall clock", "Alarm clock", "Note book", "Cook book")  # fmt: skip
MENUS = ("File", "View", "Insert", "Format", "Tools", "Window")
MENU_ITEMS = (
    "Save version", "Save all", "Close all", "Page setup...", "Export...", "Import...", "Properties", "Go to line...",
    "Line numbers", "Line spacing", "Word count", "Insert table", "Insert row", "Zoom in", "Zoom out", "Full screen",
)  # fmt: skip
NOUNS = ("river", "station", "garden", "market", "bridge", "letter", "window", "morning", "teacher", "harbour", "train")
VERBS = ("reaches", "follows", "leaves", "shows", "crosses", "needs", "keeps", "finds")
APP_NAMES = ("Writer", "Planner", "Ledger", "Atlas", "Studio", "Courier", "Harbour", "Beacon")


def distinct(rng: random.Random, pool: tuple[str, ...], count: int) -> list[str]:
    """Different texts of a pool, in random order; at most as many as there are."""
    return rng.sample(pool, min(count, len(pool)))


def file_names(rng: random.Random, count: int) -> list[str]:
    """Different file names, many of which share their beginning."""
    stems = distinct(rng, FILE_STEMS, max(2, count // 2))
    pool = [stem + tail + kind for stem in stems for tail in FILE_TAILS for kind in FILE_TYPES]
    return rng.sample(pool, count)


def people(rng: random.Random, count: int) -> list[str]:
    """Different full names; some share a first or last name."""
    pool = [f"{first} {last}" for first in FIRST_NAMES[:8] for last in LAST_NAMES[:8]]
    return rng.sample(pool, count)


def sentence(rng: random.Random) -> str:
    """A line of running text."""
    a, b = rng.sample(NOUNS, 2)
    return f"The {a} {rng.choice(VERBS)} the {b} near the {rng.choice(NOUNS)} {rng.randint(2, 99)}."
