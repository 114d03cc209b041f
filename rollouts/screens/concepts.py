"""What elements do: an icon, a label and a purpose that names neither."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """One thing that an interface can do."""

    label: str
    purpose: str
    """completes `I want to ...`; no two concepts have purposes that could be taken for one another"""
    icon: str = ""


CONCEPTS = {
    "account": Concept("Account", "see who is signed in", "person"),
    "add": Concept("New", "create a new entry", "plus"),
    "alarm": Concept("Alarms", "be woken at a certain hour", "clock"),
    "alerts": Concept("Alerts", "see what needs my attention", "bell"),
    "back": Concept("Back", "return to the previous page", "arrow left"),
    "calendar": Concept("Calendar", "see the appointments of this week", "calendar"),
    "camera": Concept("Camera", "take a photograph", "camera"),
    "cart": Concept("Cart", "see what I am about to buy", "cart"),
    "chat": Concept("Chat", "write to somebody who is online", "speech bubble"),
    "close": Concept("Close", "get rid of this window", "cross"),
    "copy": Concept("Copy", "put a second one on the clipboard", "two sheets"),
    "delete": Concept("Delete", "remove this for good", "bin"),
    "download": Concept("Download", "fetch this onto my device", "arrow into tray"),
    "edit": Concept("Edit", "change what is written", "pencil"),
    "favourites": Concept("Favourites", "see what I have marked to find again", "star"),
    "filter": Concept("Filter", "show some of the entries only", "funnel"),
    "forward": Concept("Forward", "go on to the following page", "arrow right"),
    "home": Concept("Home", "go to the start page", "house"),
    "like": Concept("Like", "say that I am fond of this", "heart"),
    "lock": Concept("Lock", "keep others from using this", "padlock"),
    "mail": Concept("Mail", "read the letters that came in", "envelope"),
    "maps": Concept("Maps", "find the way to a place", "map pin"),
    "menu": Concept("Menu", "see all parts of the app", "three lines"),
    "minimise": Concept("Minimise", "put the window away without closing it", "dash"),
    "maximise": Concept("Maximise", "make the window fill the screen", "square"),
    "more": Concept("More", "see further actions", "three dots"),
    "music": Concept("Music", "listen to songs", "note"),
    "open": Concept("Open", "load a document from the disk", "folder"),
    "pause": Concept("Pause", "halt the playback", "two bars"),
    "photos": Concept("Photos", "look at my pictures", "picture"),
    "play": Concept("Play", "start the playback", "triangle"),
    "preview": Concept("Preview", "see how the result will look", "eye"),
    "print": Concept("Print", "get this on paper", "printer"),
    "redo": Concept("Redo", "repeat what I have just taken back", "arrow curved right"),
    "refresh": Concept("Refresh", "load the page once again", "circular arrow"),
    "save": Concept("Save", "keep my changes in the same document", "disk"),
    "save_as": Concept("Save as...", "keep my changes under another name"),
    "search": Concept("Search", "look for a word", "magnifying glass"),
    "settings": Concept("Settings", "change how the app behaves", "gear"),
    "share": Concept("Share", "pass this on to others", "three joined dots"),
    "undo": Concept("Undo", "take back my last change", "arrow curved left"),
    "upload": Concept("Upload", "send a document to the server", "arrow out of tray"),
    "confirm": Concept("OK", "accept this and be done"),
    "cancel": Concept("Cancel", "leave everything as it was"),
    "help": Concept("Help", "learn how this works", "question mark"),
    "sign_in": Concept("Sign in", "enter with my name and password"),
    "sign_up": Concept("Create account", "register as a new user"),
    "forgot": Concept("Forgot password?", "get in although I do not know my password"),
    "select_all": Concept("Select all", "mark everything at once"),
    "paste": Concept("Paste", "insert what is on the clipboard"),
    "cut": Concept("Cut", "move the marked text to the clipboard"),
    "buy": Concept("Buy now", "pay for this at once"),
}

WITH_ICON = tuple(key for key, concept in CONCEPTS.items() if concept.icon)
