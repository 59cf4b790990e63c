"""A configuration file is understood, or each fault is told with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config import reference
from mta.config.load import ConfigError, load, processes
from mta.config.settings import Address, Settings

SERVER = '[server]\nhostname = "mx.example.org"\n'  # lines 1 and 2
LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\n'  # lines 3 and 4
GOOD = SERVER + LISTENER


def loaded(folder: Path, text: str | bytes) -> Settings:
    file = folder / "mta.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file)


def problems(folder: Path, text: str | bytes) -> list[str]:
    """What is told, without the folder."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [line.replace(f"{folder}/", "") for line in str(caught.value).split("\n")]


BAD = {
    "unknown key": ("[limits]\nmesage_size = 1", '6: limits.mesage_size: unknown key; did you mean "message_size"?'),
    "unknown key, nothing near": (
        "[tls]\nfoo = 1",
        "6: tls.foo: unknown key; known are certificate, certificates, client_ca, key",
    ),
    "unknown table": ("[limit]\nx = 1", '5: limit: unknown key; did you mean "limits"?'),
    "wrong type": ("[limits]\nrecipients = 'x'", "6: limits.recipients: 'x' must be a whole number"),
    "bool is no number": ("[limits]\nrecipients = true", "6: limits.recipients: True must be a whole number"),
    "unknown table in a table": ("[dns.cache]\n", "5: dns.cache: unknown key; known are nameservers, timeout"),
    "table for a value": ("[limits]\nerrors = {}", "6: limits.errors: {} must be a whole number"),
    "value for a table": ("[x]\n[limits.errors]\n", None),
    "wrong value": (
        "[limits]\nmessage_size = 'big'",
        '6: limits.message_size: \'big\' is no size; write "64M", "256K" or a number of octets',
    ),
    "wrong choice": (
        "[[listener]]\naddress = '[::1]:25'\nrole = 'submision'",
        "7: listener.role: 'submision' is not one of mx, submission, lmtp; did you mean \"submission\"?",
    ),
    "unhashable choice": (
        "[[listener]]\naddress = '[::1]:25'\nrole = ['mx']",
        "7: listener.role: ['mx'] is not one of mx, submission, lmtp",
    ),
    "too small": ("[retry]\nfactor = 0.5", "6: retry.factor: 0.5 is too small; at least 1"),
    "no class of replies": (
        "[retry]\nfirst = '1m'\n[[retry.rule]]\ndomain = '*.org'\nclasses = ['grey-list']",
        "9: retry.rule.classes: 'grey-list' is not one of unknown-user, disabled-user, mailbox-full, content,"
        " reputation, authentication, sender, policy, rate, greylist, relay-denied, size, dns, tls, connection,"
        ' protocol, system, loop, expired, suppressed, other; did you mean "greylist"?',
    ),
    "a wait of a rule": ("[[retry.rule]]\nfirst = 0", "6: retry.rule.first: 0 is too small; at least 0.01"),
    "nowhere else to send from": (
        "[[retry.rule]]\nquarantine = '1h'",
        "6: retry.rule.quarantine: means nothing without a [[source]]",
    ),
    "too large": ("[delivery]\nport = 65536", "6: delivery.port: 65536 is too large; at most 65535"),
    "nan": ("[retry]\nfactor = nan", "6: retry.factor: must be a number of reasonable size"),
    "missing key": ("[[domain]]\nname = 'a.org'", "5: domain.deliver: is missing; add it to [[domain]]"),
    "twice the address": (
        "[[listener]]\naddress = '127.0.0.1:2525'",
        "6: listener.address: 127.0.0.1:2525 is there twice",
    ),
    "twice in one list": (
        "[[listener]]\naddress = [\n'[::1]:25',\n'[0::1]:25']",
        "6: listener.address: [::1]:25 is there twice",
    ),
    "no address": ("[[listener]]\naddress = []", "6: listener.address: names no address"),
    "twice the domain": (
        "[[domain]]\nname = 'a.org'\ndeliver = 'discard:'\n[[domain]]\nname = 'A.org'\ndeliver = 'discard:'",
        "9: domain.name: a.org is there twice",
    ),
    "TLS without certificate": (
        "tls = 'starttls'\n[tls]\nkey = 'mta.toml'",
        "5: listener.tls: needs [tls] certificate",
    ),
    "certificate that is none": (
        "tls = 'starttls'\n[tls]\nkey = 'mta.toml'\ncertificate = 'none.pem'",
        "8: tls.certificate: none.pem cannot be read",
    ),
    "authorities that are not there": (
        "[delivery]\ntls_authorities = 'none.pem'",
        "6: delivery.tls_authorities: none.pem cannot be read",
    ),
    "TLS wanted a little": (
        "[delivery]\ntls = 'maybe'",
        "6: delivery.tls: 'maybe' is not one of off, may, require; did you mean \"may\"?",
    ),
    "logins at an mx": (
        "mechanisms = ['PLAIN']",
        '5: listener.mechanisms: means nothing with role "mx": nobody logs in there',
    ),
    "logins that cannot be": (
        "role = 'submission'\n[[auth]]\ntype = 'file'\npath = 'x'",
        '3: listener.tls: without it nobody may log in; use "starttls" or "implicit" (or auth_without_tls = true)',
    ),
    "mechanism": (
        "role = 'submission'\nmechanisms = ['PLANE']",
        "6: listener.mechanisms: 'PLANE' is not one of PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, SCRAM-SHA-1,"
        ' OAUTHBEARER, XOAUTH2, EXTERNAL; did you mean "PLAIN"?',
    ),
    "extension": (
        "without = ['SMTPUTF-8']",
        "5: listener.without: 'SMTPUTF-8' is not one of PIPELINING, SIZE, 8BITMIME, ENHANCEDSTATUSCODES, SMTPUTF8, DSN,"
        " CHUNKING, BINARYMIME, REQUIRETLS, FUTURERELEASE, DELIVERBY, MT-PRIORITY, LIMITS;"
        ' did you mean "SMTPUTF8"?',
    ),
    "client certificates without TLS": (
        "client_certificates = 'ask'",
        '5: listener.client_certificates: means nothing with tls = "off"',
    ),
    "client certificates that nobody vouches for": (
        "tls = 'implicit'\nclient_certificates = 'require'\n[tls]\ncertificate = 'mta.toml'\nkey = 'mta.toml'",
        "6: listener.client_certificates: needs [tls] client_ca",
    ),
    "an authority that is not there": (
        "tls = 'implicit'\nclient_certificates = 'require'\n"
        "[tls]\ncertificate = 'mta.toml'\nkey = 'mta.toml'\nclient_ca = 'none.pem'",
        "10: tls.client_ca: none.pem cannot be read",
    ),
    "a further certificate without its key": (
        "[[tls.certificates]]\ncertificate = 'mta.toml'",
        "5: tls.certificates.key: is missing; add it to [[tls.certificates]]",
    ),
    "a further certificate that is not there": (
        "tls = 'implicit'\n[tls]\ncertificate = 'mta.toml'\nkey = 'mta.toml'\n"
        "[[tls.certificates]]\ncertificate = 'none.pem'\nkey = 'mta.toml'",
        "10: tls.certificates.certificate: none.pem cannot be read",
    ),
    "truth": ("auth_without_tls = 'yes'", "5: listener.auth_without_tls: 'yes' must be true or false"),
    "users file": ("[[auth]]\ntype = 'file'", '5: auth.path: is missing; type "file" needs it'),
    "key of another type": (
        "[[auth]]\ntype = 'dovecot'\npath = 'x'\nhook = 'a:b'",
        '8: auth.hook: means nothing with type "dovecot"',
    ),
    "query for everybody": (
        "[[auth]]\ntype = 'sql'\ndatabase = 'sqlite:x'\nquery = 'SELECT a::user'",
        "8: auth.query: never asks for :user, so every name would be the same to it",
    ),
    "database": (
        "[[auth]]\ntype = 'sql'\ndatabase = 'x'\nquery = ':user'",
        '7: auth.database: is no database; write "sqlite:PATH" or "postgresql://USER@HOST/DATABASE"',
    ),
    "hook": (
        "[[auth]]\ntype = 'hook'\nhook = 'os.system'",
        "7: auth.hook: 'os.system' is no function; write \"module:function\"",
    ),
    "no token service": ("[[auth]]\ntype = 'oauth'", "5: auth.jwks: name either introspection or jwks, and not both"),
    "audience": (
        "[[auth]]\ntype = 'oauth'\njwks = 'https://x/'",
        "5: auth.audience: is missing; without it a token meant for another service would be good here",
    ),
    "plain token service": (
        "[[auth]]\ntype = 'oauth'\nintrospection = 'http://x.test/'",
        "7: auth.introspection: must begin with https:// (http:// is for this machine only)",
    ),
    "proxy": ("role = 'proxy'", "5: listener.role: the role proxy is not available in this version"),
    "pipe": (
        "[[domain]]\nname = 'a.org'\ndeliver = 'pipe:/bin/true'",
        "7: domain.deliver: pipe: is not available in this version",
    ),
    "domain by mx": (
        "[[domain]]\nname = 'a.org'\ndeliver = 'mx'",
        "7: domain.deliver: mx delivers nothing; see [[route]]",
    ),
    "domain on hold": (
        "[[domain]]\nname = 'a.org'\ndeliver = 'hold:'",
        "7: domain.deliver: hold: delivers nothing; see [[route]]",
    ),
    "route to a maildir": (
        "[[route]]\ndomain = '*'\nnext_hop = 'maildir:/x/{local}'",
        "7: route.next_hop: maildir: is for own domains; declare a [[domain]]",
    ),
    "single table": (
        "[domain]\nname = 'a.org'\ndeliver = 'discard:'",
        "5: domain: is a list of tables: write [[domain]]",
    ),
    "table twice": ("[[limits]]\nerrors = 1", "5: limits: must be a table: [limits]"),
    "not TOML": ("[limits\n", "5: not TOML: Expected ']' at the end of a table declaration"),
    "not TOML at the end": ("x = '''\n", "6: not TOML: Expected \"'''\""),
    "key twice": ("[dns]\ntimeout = 1\ntimeout = 2", "7: not TOML: Cannot overwrite a value"),
    "deep": ("x = " + "[" * 5000, None),
    "long number": ("[limits]\nerrors = " + "1" * 5000, None),
    "large number": (f"[limits]\nerrors = {10**30}", "6: limits.errors: must be a number of reasonable size"),
}


@pytest.mark.parametrize(
    ("snippet", "told"), [b for b in BAD.values() if b[1]], ids=[k for k, b in BAD.items() if b[1]]
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, snippet: str, told: str) -> None:
    assert problems(tmp_path, GOOD + snippet) == [f"mta.toml:{told}"]


@pytest.mark.parametrize("snippet", [b[0] for b in BAD.values() if not b[1]])
def test_what_is_beyond_all_measure_is_told_too(tmp_path: Path, snippet: str) -> None:
    assert problems(tmp_path, GOOD + snippet)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LISTENER, ["mta.toml:1: server: is missing; add a table [server]"]),
        (SERVER, ["mta.toml:1: listener: is missing; add a [[listener]]"]),
        (
            "listener = []\n" + SERVER,
            ["mta.toml:1: listener: there is none: this server would accept nothing; add a [[listener]]"],
        ),
        ("[server]\n" + LISTENER, ["mta.toml:1: server.hostname: is missing; add it to [server]"]),
        ("server = 1\n" + LISTENER, ["mta.toml:1: server: must be a table: [server]"]),
        ("server.hostname = 1\n" + LISTENER, ["mta.toml:1: server.hostname: 1 must be a string in quotes"]),
        (SERVER + "[[listener]]\ntls = 'off'", ["mta.toml:3: listener.address: is missing; add it to [[listener]]"]),
        ("listener = 5\n" + SERVER, ["mta.toml:1: listener: must be a table: [[listener]]"]),
        (
            "",
            [
                "mta.toml:1: server: is missing; add a table [server]",
                "mta.toml:1: listener: is missing; add a [[listener]]",
            ],
        ),
    ],
)
def test_what_must_be_there(tmp_path: Path, text: str, told: list[str]) -> None:
    assert problems(tmp_path, text) == told


def test_all_faults_are_told_together_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        GOOD + "[spool]\nmin_free = -1\n[dns]\ntimeout = 0\nnameservers = ['::1', '127.0.0.1:53', 5]\n[retry]\nx = 1\n"
    )
    assert [line.split(": ")[:2] for line in problems(tmp_path, text)] == [
        ["mta.toml:6", "spool.min_free"],
        ["mta.toml:8", "dns.timeout"],
        ["mta.toml:9", "dns.nameservers"],
        ["mta.toml:9", "dns.nameservers"],
        ["mta.toml:11", "retry.x"],
    ]


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.encode() + b"\n# \xff") == ["mta.toml: is not UTF-8: invalid start byte at octet 80"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml")
    assert str(caught.value) == f"{tmp_path}/none.toml: cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_the_least_there_must_be(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)
    assert found.server.hostname == "mx.example.org"
    assert found.server.state_dir == tmp_path / "var"
    assert found.server.runtime_dir == tmp_path / "run"
    assert found.listener[0].address == (Address("127.0.0.1", 2525),)
    assert found.limits.message_size == 50 << 20
    assert found.domain == found.route == ()


def test_everything_given(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("")
    found = loaded(
        tmp_path,
        """
server = {hostname = "MX.example.org", state_dir = "/srv/mta", runtime_dir = "../run", receivers = 3, couriers = 1}
tls = {certificate = "cert.pem", key = "cert.pem"}
relay.networks = ["127.0.0.0/8", "::1"]
retry = {first = "1m", factor = 3, cap = "2h", jitter = 0, expiry = "1d"}
dns.nameservers = "127.0.0.1:53"
log.path = "mail.log"
[[listener]]
address = ["0.0.0.0:25", "[::]:25"]
tls = "starttls"
[[domain]]
name = "Example.org"
deliver = "maildir:mail/{local}"
[[route]]
domain = "*.example.net"
next_hop = "smtp:[::1]:2525"
""",
    )
    assert found.server.hostname == "mx.example.org"
    assert found.server.state_dir == Path("/srv/mta")
    assert found.server.runtime_dir == tmp_path / "../run"
    assert found.tls.key == tmp_path / "cert.pem"
    assert list(map(str, found.relay.networks)) == ["127.0.0.0/8", "::1/128"]
    assert (found.retry.first, found.retry.factor, found.retry.expiry) == (60.0, 3.0, 86400.0)
    assert found.dns.nameservers == (Address("127.0.0.1", 53),)
    assert found.log.path == tmp_path / "mail.log"
    assert found.domain[0].name == "example.org"
    assert found.domain[0].deliver.path == f"{tmp_path}/mail/{{local}}"
    assert found.route[0].next_hop.host == "::1"
    assert processes(found) == (3, 1)


def test_no_path_depends_on_where_the_command_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load(Path("mta.toml")).server.state_dir == tmp_path / "var"


def test_without_a_number_half_the_cores_work(tmp_path: Path) -> None:
    assert min(processes(loaded(tmp_path, GOOD))) >= 1


def test_windows_line_ends(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD.replace("\n", "\r\n")).server.hostname == "mx.example.org"
    bad = (GOOD + "[dns]\nx = 1\n").replace("\n", "\r\n")
    assert problems(tmp_path, bad) == ["mta.toml:6: dns.x: unknown key; known are nameservers, timeout"]


def test_the_reference_in_the_documents_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text() == reference.reference()


def test_limits_of_a_listener(tmp_path: Path) -> None:
    """Its own table, then [limits], then what fits its role."""
    text = (
        f"{GOOD}[listener.limits]\nerrors = 5\nmessage_rate = '5/m'\n"
        "[[listener]]\naddress = '[::1]:587'\nrole = 'submission'\n"
        "[listener.limits]\nconnection_rate = 'none'\n"
        "[[listener]]\naddress = '[::1]:465'\nrole = 'submission'\n"
        "[limits]\nerrors = 7\nrecipients = 10\nconnections_per_address = 9\n"
    )
    mx, submission, other = (listener.limits for listener in loaded(tmp_path, text).listener)
    assert (mx.errors, submission.errors, other.errors) == (5, 7, 7)
    assert (mx.recipients, submission.recipients) == (10, 10)
    assert (str(mx.message_rate), str(submission.message_rate)) == ("5/m", "1000/h")
    assert (str(submission.connection_rate), str(other.connection_rate)) == ("none", "120/m")
    assert (mx.connections_per_address, submission.connections_per_address) == (9, 9)


def test_limits_of_a_listener_that_are_wrong(tmp_path: Path) -> None:
    text = f"{GOOD}[listener.limits]\nmesage_rate = '5/m'\nconnection_rate = 60\n"
    assert problems(tmp_path, text) == [
        'mta.toml:6: listener.limits.mesage_rate: unknown key; did you mean "message_rate"?',
        'mta.toml:7: listener.limits.connection_rate: 60 is no rate; write "5/s", "60/m", "1000/h", "9000/d" (at most'
        ' a million) or "none"',
    ]


def test_rules_know_where_they_are_written(tmp_path: Path) -> None:
    more = """
[[domain]]
name = "own.example"
deliver = "discard:"

# a remark
[[route]]
domain = "*.partner.example"
next_hop = "hold:"
"""
    settings = loaded(tmp_path, GOOD + more)
    assert settings.domain[0].where == f"{tmp_path}/mta.toml:6"
    assert settings.route[0].where == f"{tmp_path}/mta.toml:11"
    assert problems(tmp_path, GOOD + more + 'where = "x"\n') == [
        "mta.toml:14: route.where: unknown key; known are domain, next_hop"
    ]
