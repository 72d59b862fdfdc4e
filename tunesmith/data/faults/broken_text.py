"""Text that was decoded with a wrong encoding, or holds characters that nobody sees: found, and mended where that is safe.
Knows characters; knows no row."""

import re

_TYPOGRAPHIC = "‘’“”–—…•„‚‹›«»"
"""What ordinary text puts behind a letter with an accent, too."""

_BYTE_OF = {chr(byte): byte for byte in range(0x80, 0xC0)}
_BYTE_OF |= {shown: byte for byte in range(0x80, 0xC0) if (shown := bytes([byte]).decode("cp1252", "ignore"))}
"""A byte inside a UTF-8 character, as a program shows it that takes the text for Western European."""

_INNER = f"[{re.escape(''.join(_BYTE_OF))}]"
_WESTERN = re.compile(rf"(?:[Â-ß]{_INNER}|[à-ï]{_INNER}{{2}}|[ð-ô]{_INNER}{{3}})+")
_CERTAIN = re.compile("â[€\x80‚\x82]|ð[Ÿ\x9f]")
"""How typographic signs and emoji begin."""

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]{3,}")
_EAST_ASIAN = re.compile(r"[　-〿぀-ヿ㐀-鿿가-힯＀-￯]{2,}")
_LOST = re.compile(r"\ufffd|锟斤拷|烫烫烫|屯屯屯")
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufff9-\ufffb]"
)


def unscrambled(text: str) -> str:
    """The text with UTF-8 that was read as Western European (`cafÃ©`) or as GBK (`浣犲ソ`) put right; the same text where
    nothing is certain."""
    if text.isascii():
        return text
    return _BEYOND_ASCII.sub(_from_gbk, _WESTERN.sub(_from_western, text))


def is_lost(text: str) -> bool:
    """Whether characters are gone for good: replaced by marks for what could not be read, or torn by a wrong decoding."""
    if text.isascii():
        return False
    return bool(_LOST.search(text)) or any(_read_as_gbk(run)[1] for run in _BEYOND_ASCII.findall(text))


def unseen(text: str) -> list[str]:
    """Control, zero-width and direction characters and byte order marks in the text, as escapes, each once."""
    return [ascii(one)[1:-1] for one in dict.fromkeys(_UNSEEN.findall(text))]


def without_unseen(text: str) -> str:
    """The text without those characters."""
    return _UNSEEN.sub("", text)


def _from_western(match: re.Match[str]) -> str:
    run = match[0]
    starts = [one for one in run if one not in _BYTE_OF]
    telling = [one for one in run if one in _BYTE_OF and one not in _TYPOGRAPHIC]
    # A letter with an accent before typographic signs is ordinary text.
    if not _CERTAIN.search(run) and not (telling and (set(starts) <= {"Â", "Ã"} or len(starts) > 1)):
        return run
    try:
        return bytes(_BYTE_OF.get(one, ord(one)) for one in run).decode()
    except UnicodeDecodeError:
        return run


def _from_gbk(match: re.Match[str]) -> str:
    found, torn = _read_as_gbk(match[0])
    return match[0] if torn or not found else found


def _read_as_gbk(run: str) -> tuple[str, bool]:
    """What characters spell when they are UTF-8 that was read as GBK, and whether the last one is torn; '' when they are
    what they seem: hardly any other text is UTF-8 when it is written as GBK."""
    try:
        bytes_ = run.encode("gbk")
    except UnicodeEncodeError:
        return "", False
    for torn in range(3):
        try:
            found = bytes_[: len(bytes_) - torn].decode()
        except UnicodeDecodeError:
            continue
        return (found, torn > 0) if _EAST_ASIAN.fullmatch(found) else ("", False)
    return "", False
