"""What went wrong with a request, in words, and whether it is worth another try."""

from __future__ import annotations

from aiohttp import (
    ClientConnectionError,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientPayloadError,
    ClientResponseError,
    ClientSSLError,
    InvalidURL,
    ServerDisconnectedError,
    TooManyRedirects,
)

# What a request may raise; a timeout is an OSError.
WEB_ERRORS = ClientError, OSError, ValueError


def in_words(error: BaseException, *, timeout: float) -> str:
    """Say what went wrong with a request, whose time was limited to that many seconds."""
    match error:
        case TimeoutError():
            return f"timed out after {timeout:g} s"
        case TooManyRedirects():
            return "redirects without end"
        case ClientResponseError() if error.__cause__:
            return "the answer is not valid HTTP"
        case ClientResponseError():
            reason = error.message.encode("ascii", "replace").decode()
            return f"{error.status} {reason}".rstrip()
        case ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            return f"certificate not trusted: {reason}"
        case ClientConnectorSSLError():
            reason = getattr(error.os_error, "reason", None) or "the handshake failed"
            return f"no secure connection: {reason.replace('_', ' ').lower()}"
        case ClientConnectorDNSError():
            return "name not found"
        case ClientConnectorError(os_error=ConnectionRefusedError()):
            return "refused the connection"
        case ClientConnectorError():
            return f"cannot connect: {error.os_error.strerror or error.os_error}"
        case ServerDisconnectedError():
            return "closed the connection without an answer"
        case ClientConnectionError():
            return "broke off the connection"
        case ClientPayloadError():
            return "the answer is garbled or breaks off"
        case UnicodeError():
            return "not a possible host name"
        case InvalidURL():
            return "not a possible address"
        case ValueError():
            return f"not a possible address: {error}"
        case OSError(strerror=str(reason)):
            return f"{reason}: {error.filename}" if error.filename else reason
    return str(error) or type(error).__name__


def may_pass(error: Exception) -> bool:
    """Return whether another try may help: not if the server has refused, nor if its certificate is wrong."""
    if isinstance(error, ClientResponseError):
        return error.status >= 500 or error.status == 429
    if isinstance(error, ClientSSLError):
        return False
    return isinstance(error, (ClientConnectionError, ClientPayloadError, TimeoutError))
