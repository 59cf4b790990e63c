SOURCE_HASH: str

_Row = tuple[str, int, int, str, str, str, str | None, str | None, int | None, str | None]

def scan(data: bytes, /) -> tuple[list[_Row], list[str], int, int]: ...
