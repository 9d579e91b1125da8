"""Server-sent events: from bytes, cut anywhere, to messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Message", "SseParser"]


@dataclass(frozen=True)
class Message:
    """One message of a stream.

    Attributes:
        event: Its type; "message" if it names none.
        data: Its lines of data, joined by newlines.
        id: Its own id, None if it has none.
    """

    event: str
    data: str
    id: str | None


class SseParser:
    """Takes the bytes of one connection. What is not complete when it breaks is dropped: it will be sent again."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_return = False
        self._first = True
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that are complete with this chunk. Lines end with LF, CR or both."""
        found = []
        if self._after_return and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._after_return = False
        while chunk:
            self._after_return = False
            end = min((at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0), default=-1)
            if end < 0:
                self._line += chunk
                break
            self._line += chunk[:end]
            message = self._take(self._line.decode("utf-8", errors="replace"))
            self._line.clear()
            if message is not None:
                found.append(message)
            width = 2 if chunk[end : end + 2] == b"\r\n" else 1
            self._after_return = chunk[end : end + 2] == b"\r"
            chunk = chunk[end + width :]
        return found

    def _take(self, line: str) -> Message | None:
        if self._first:
            self._first = False
            line = line.removeprefix("\ufeff")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _dispatch(self) -> Message | None:
        message = Message(self._event or "message", "\n".join(self._data), self._id) if self._data else None
        self._event, self._data, self._id = "", [], None
        return message
