"""URLs are read in one way or not at all: nothing is repaired."""

from __future__ import annotations

import pytest

from services.errors import RequestError
from services.outbound.urls import parse_url


@pytest.mark.parametrize(
    ("text", "authority", "resource"),
    [
        ("https://example.com", "example.com", "/"),
        ("HTTPS://EXAMPLE.com/A", "example.com", "/A"),
        ("https://example.com:443/", "example.com", "/"),
        ("https://example.com:8443/a/b.png?x=1&y=/?:@%20", "example.com:8443", "/a/b.png?x=1&y=/?:@%20"),
        ("https://example.com?q", "example.com", "/?q"),
        ("https://example.com./a", "example.com", "/a"),
        ("https://a_b.example.com/", "a_b.example.com", "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
        ("https://bücher.example/", "xn--bcher-kva.example", "/"),
        ("https://ＥＸＡＭＰＬＥ．com/", "example.com", "/"),
        ("https://example。com/", "example.com", "/"),
        ("https://8.8.8.8/a", "8.8.8.8", "/a"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]", "/"),
        ("https://[2606:4700:0:0::1111]:8443/", "[2606:4700::1111]:8443", "/"),
        ("https://example.com/~a/(b);c,d='e'!$*+/[f]", "example.com", "/~a/(b);c,d='e'!$*+/[f]"),
        ("https://example.com//a/../b/./c", "example.com", "//a/../b/./c"),
    ],
)
def test_good_urls(text: str, authority: str, resource: str) -> None:
    target = parse_url(text)
    assert (target.authority, target.resource) == (authority, resource)
    assert parse_url(target.url) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "example.com",
        "//example.com/",
        "/a.png",
        "https:",
        "https:/example.com/",
        "https:example.com",
        "https://",
        "https:///a",
        "https://:443/",
        "https://.com/",
        "https://example..com/",
        "https://example.com../",
        "https://-a.example.com/",
        "https://a-.example.com/",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
        "https://example.com/" + "a" * 2048,
        "ftp://example.com/",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "gopher://example.com:70/_x",
        "dict://example.com/",
        "data:image/png;base64,AAAA",
        "javascript://example.com/%0aalert(1)",
        "https+unix://%2Ftmp%2Fsocket/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com:secret@evil.com/",
        "https://good.com%40evil.com/",
        "https://evil.com\\@good.com/",
        "https://evil.com\\.good.com/",
        "https:\\\\example.com\\a",
        "https://good.com#@evil.com/",
        "https://example.com/#part",
        "https://exa mple.com/",
        "https://example.com /",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com/a b",
        "https://example.com/\r\nHost: evil.com",
        "https://example.com/%0d%0aX: y",
        "https://exam\tple.com/",
        "https://example.com/\x00",
        "https://example.com\x00.evil.com/",
        "https://example.com/ä",
        "https://%65xample.com/",
        "https://example.com%00.evil.com/",
        "https://example.com:/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:99999999999/",
        "https://example.com:-1/",
        "https://example.com:４４３/",
        "https://example.com:443:80/",
        "https://[::1/",
        "https://::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.x]/",
        "https://[1.2.3.4]/",
        "https://[::g]/",
        "https://[]/",
        "https://exa<mple.com/",
        "https://{host}/",
        "https://$(id).example.com/",
        "https://`id`.example.com/",
        "https://a,b.example.com/",
        "https://a;b.example.com/",
        "https://\u200b.example.com/",
        "https://exa\u202emple.com/",
        "https://\ud800.com/",
        "https://" + "ä" * 300 + ".com/",
    ],
)
def test_urls_that_are_refused(text: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_url(text)
    assert refusal.value.code == "validation-failed"
    assert "example.com" not in refusal.value.message  # what was sent is not sent back


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "017700000001",
        "8.8.8.08",
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3",
        "0x",
        "1.0x",
        "example.1",
        "127.0.0.0x1",
        "00.0.0.0",
        "４２９４９６７２９５",
        "127。1",
        "①②⑦.①",
        "127.0.0.01.",
    ],
)
def test_addresses_in_disguise(host: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_url(f"https://{host}/")
    assert refusal.value.code == "source-forbidden-address"
