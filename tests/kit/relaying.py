"""Forward-paths by which mail servers have been made to relay, for a server whose own domains are `OWN` and `BEHIND`.

`OWN` is kept in Maildirs; mail for `BEHIND` goes on to another host, which may believe whatever comes from here.
"""

from __future__ import annotations

OWN = "home.test"
BEHIND = "behind.test"

_HOMOGRAPHS = (
    *(b"bob@h\xd0\xbeme.test", b"bob@home\xe3\x80\x82test", b"bob@home\xef\xbc\x8etest", b"bob@home\xef\xbd\xa1test"),
    *(b"bob@\xef\xbd\x88ome.test", b"bob@home.test\xe2\x80\x8b", b"bob\xef\xbc\xa0home.test", b"bob@home.\xc5\xa3est"),
    *(b"bob@far.test\xef\xbc\xa0home.test", b"bob@home.test\xc2\xad", b"bob@home.test\xff", b"bob@home.test\x85"),
)

# Refused, whoever the sender says to be.
REFUSED: tuple[bytes, ...] = (
    *(b"bob@far.test", b"BOB@FAR.TEST", b"Bob@Far.Test", b"bob@far", b"bob@test", b"bob@localhost", b"bob@mx.test"),
    # source routes (RFC 5321 Appendix C): what counts is the mailbox behind them
    *(
        b"@home.test:bob@far.test",
        b"@home.test,@far.test:bob@far.test",
        b"@far.test:bob@far.test",
        b"@home.test:@far.test",
    ),
    *(b"@home.test:bob%far.test", b"@home.test:bob", b"@home.test", b"@home.test:", b"@[127.0.0.1]:bob@far.test"),
    # the percent hack and bang paths, with a foreign domain behind the last @
    *(b"bob%home.test@far.test", b"bob%far.test@far.test", b"home.test!bob@far.test", b"far.test!bob@far.test"),
    # quoting
    *(
        b'"bob@home.test"@far.test',
        b'"bob@far.test"',
        b'"bob@far.test',
        b'bob@far.test"@home.test',
        b'"<bob@home.test>"@far.test',
    ),
    *(b'"bob"@"home.test"@far.test', b"bob@far.test\\@home.test", b'"bob@far.test"home.test', b"bob\\@far.test"),
    # several of @
    *(b"bob@far.test@home.test", b"bob@home.test@far.test", b"bob@@home.test", b"@bob@home.test", b"bob@far.test@"),
    # what is not quite an own domain
    *(
        b"bob@sub.home.test",
        b"bob@home.test.far.test",
        b"bob@xhome.test",
        b"bob@home.testx",
        b"bob@ome.test",
        b"bob@home",
    ),
    *(b"bob@home.test.", b"bob@far.test.", b"bob@.home.test", b"bob@home..test", b"bob@home.test..", b"bob@home_test"),
    *(b"bob@far.test,home.test", b"bob@home.test,far.test", b"bob@far.test;bob@home.test", b"bob@home.test:25"),
    *(b"bob@home.test bob@far.test", b"bob@far.test home.test", b"bob@home.test>,<bob@far.test", b"<bob@far.test>"),
    *(b"bob@home.test/far.test", b"bob@home.test#far.test", b"bob@home.test?far.test", b"bob@far.test|home.test"),
    *(b"bob@xn--hme-8cd.test", b"bob@-home.test", b"bob@home.test-", b"bob@*", b"bob@*.test", b"bob@%68ome.test"),
    # literals: no address is a domain here, not even our own (RFC 5321 §4.1.3)
    *(b"bob@[127.0.0.1]", b"bob@[192.0.2.1]", b"bob@[IPv6:::1]", b"bob@[IPv6:::ffff:127.0.0.1]", b"bob@127.0.0.1"),
    *(
        b"bob@[home.test]",
        b"bob@[far.test]",
        b"bob@[127.1]",
        b"bob@[0x7f000001]",
        b"bob@[127.0.0.1]@home.test",
        b"bob@#2130706433",
    ),
    # no domain
    *(b"bob", b"bob@", b"@", b"bob%far.test", b"far.test!bob", b"postmaster@", b"bob@ ", b"bob@[]", b"bob@\t"),
    # mail for a host behind this one that could be told to send it on
    *(
        b"bob%far.test@behind.test",
        b"far.test!bob@behind.test",
        b'"bob@far.test"@behind.test',
        b'"bob%far.test"@behind.test',
    ),
    *(b'"far.test!bob"@behind.test', b"@far.test:bob%far.test@BEHIND.TEST", b'"bob\\@far.test"@behind.test'),
    *_HOMOGRAPHS,
)

# Taken, for a mailbox of `OWN` and nowhere else; the name of its Maildir.
AT_HOME: dict[bytes, str] = {
    b"bob@home.test": "bob",
    b"Bob@HOME.TEST": "bob",
    b"@far.test:bob@home.test": "bob",
    b"@far.test,@sub.home.test:bob@Home.Test": "bob",
    b"bob%far.test@home.test": "bob%far.test",
    b"bob%far.test%home.test@home.test": "bob%far.test%home.test",
    b"far.test!bob@home.test": "far.test!bob",
    b'"bob@far.test"@home.test': "bob@far.test",
    b'"@far.test:bob"@home.test': "@far.test:bob",
    b'"bob\\@far.test"@home.test': "bob@far.test",
    b"bob#far.test@home.test": "bob#far.test",
    b"postmaster": "postmaster",
    b"PostMaster": "postmaster",
}
