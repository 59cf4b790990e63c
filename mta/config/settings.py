"""Every setting, declared once: type, default, unit and one sentence.

The loader (`mta.config.load`) reads the TOML file into these classes and knows nothing else about them: the type
says how a value is checked, `metadata["help"]` is what the reference and the error messages say.
Code receives its own section, never the tree.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mta.config.declare import Octets as Octets
from mta.config.declare import Seconds as Seconds
from mta.config.declare import key, place
from mta.config.failures import Blame as Blame
from mta.config.failures import Notices as Notices
from mta.config.failures import Retry as Retry
from mta.config.failures import RetryRule as RetryRule
from mta.config.failures import Suppression as Suppression

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds; a count of 0 stands for any number."""

    count: int
    seconds: int

    def __str__(self) -> str:
        units = {1: "s", 60: "m", 3600: "h", 86400: "d"}
        return f"{self.count}/{units.get(self.seconds, f'{self.seconds}s')}" if self.count else "none"


NO_RATE = Rate(0, 60)

# What moves mail in time, or before other mail: not for strangers (RFC 4865 §4.2, RFC 6710 §4.1).
TIMELY_EXTENSIONS = ("FUTURERELEASE", "DELIVERBY", "MT-PRIORITY")


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on or to ask: an IP address and a port, or the path of a unix socket to listen on."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where mail is handed over. `text` is what the operator wrote.

    smtp:HOST[:PORT]  lmtp:HOST:PORT  lmtp:unix:PATH  maildir:TEMPLATE  mx  hold:  discard:
    """

    kind: Literal["smtp", "lmtp", "maildir", "mx", "hold", "discard"]
    host: str = ""
    port: int = 0
    path: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """[server]: the machine and its processes."""

    hostname: str = key("The name this server greets with and signs trace headers with; must resolve to it.")
    state_dir: Path = key("Spool and everything else that must outlive a restart.", Path("var"))
    runtime_dir: Path = key("The control socket; may be empty at boot.", Path("run"))
    receivers: int = key("Processes that accept mail; 0 means half the cores.", 0, low=0, high=64)
    couriers: int = key("Processes that deliver mail; 0 means half the cores.", 0, low=0, high=62)
    user: str = key("The user to become after the ports are open; empty: stay as started.", "")
    drain: Seconds = key("How long a stop waits for work in hand.", Seconds(10.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """[limits]: what clients may ask; [listener.limits] behind a [[listener]] changes single keys for that one."""

    message_size: Octets = key("The largest message.", Octets(50 << 20), low=1024)
    recipients: int = key("Recipients in one message (RFC 5321 4.5.3.1.8 asks for at least 100).", 1000, low=1)
    hold: Seconds = key(
        "How long a user may have mail held back before it is sent (FUTURERELEASE, RFC 4865); 0: not at all.",
        Seconds(14 * 86400.0),
        high=999_999_999.0,
    )
    deliver_by: Seconds = key(
        "The shortest time in which a user may want mail delivered or returned (DELIVERBY, RFC 2852).",
        Seconds(60.0),
        high=999_999_999.0,
    )
    connections: int = key(
        "Connections to one listener at once, over all receivers; further ones are greeted with 421.", 20000, low=1
    )
    connections_per_address: int = key(
        "Of these from one IPv4 address or IPv6 /64; 0: any number.", 50, low=0, roles={"submission": 20}
    )
    connection_rate: Rate = key(
        'New connections from one address or /64: "60/m", "1000/h" or "none".',
        NO_RATE,
        roles={"submission": Rate(120, 60)},
    )
    message_rate: Rate = key("MAIL commands from one address or /64.", NO_RATE, roles={"submission": Rate(1000, 3600)})
    recipient_rate: Rate = key(
        "RCPT commands from one address or /64.", NO_RATE, roles={"submission": Rate(5000, 3600)}
    )
    error_rate: Rate = key(
        "Refused commands from one address or /64; who has more is greeted with 421 until they are past.",
        NO_RATE,
        roles={"submission": Rate(300, 3600)},
    )
    limit_trusted: bool = key("Hold the networks of [relay] to the limits of one address, too.", False)
    errors: int = key("Refused commands before the session is closed.", 20, low=1)
    slow_errors: int = key("Refused commands in a session from which on replies are held back.", 10, low=1)
    error_delay: Seconds = key(
        "How long the first of these is held back; each further one so much longer, up to ten times that.",
        Seconds(1.0),
        high=30.0,
    )
    idle_commands: int = key(
        "Commands that move no mail (NOOP, RSET, VRFY, EHLO, ...) between two messages before the session is closed.",
        100,
        low=1,
    )
    header_size: Octets = key("The longest header; 0: any.", Octets(256 << 10), low=0)
    header_lines: int = key("Lines in it; 0: any number.", 5000, low=0)
    hops: int = key(
        "A mail with so many Received fields goes round in a circle, and is refused (RFC 5321 6.3 asks for at least"
        " 100); 0: any number.",
        100,
        low=0,
        high=1000,
    )
    line_length: int = key(
        "Octets in a line of a text, without its CRLF; 0: any. RFC 5321 4.5.3.1.6 has 998, but longer ones are met in"
        " honest mail, and this server carries them as they are.",
        0,
        low=0,
    )
    mime_depth: int = key("How deep multiparts may lie within each other; 0: not looked at.", 0, low=0)
    session_messages: int = key(
        "MAIL commands in one session, refused ones too, before it is closed with 421; EHLO tells it (LIMITS MAILMAX,"
        " RFC 9422). 0: any number.",
        0,
        low=0,
    )
    greeting_timeout: Seconds = key("Wait for the first command.", Seconds(300.0), low=0.1)
    command_timeout: Seconds = key("Wait for the next command to be whole (RFC 5321 4.5.3.2).", Seconds(300.0), low=0.1)
    data_timeout: Seconds = key("Wait for the next part of a text.", Seconds(180.0), low=0.1)
    stress_timeout: Seconds = key(
        "No wait is longer than this while four fifths of `connections` are in use, or of what a receiver can hold.",
        Seconds(20.0),
        low=0.1,
    )
    handshake_timeout: Seconds = key("A TLS handshake must be done in this time.", Seconds(30.0), low=0.1)
    session_timeout: Seconds = key(
        "How long a session may last in all, or twice as long where a message is on its way; 0: any time.",
        Seconds(86400.0),
    )
    data_rate: Octets = key(
        "Octets a second at which a text must come, over `data_window`; 0: any.", Octets(100), low=0
    )
    data_window: Seconds = key("How long a text may come more slowly than that.", Seconds(60.0), low=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """[[listener]]: addresses that accept SMTP."""

    address: tuple[Address, ...] = key('One address or a list: "0.0.0.0:25", "[::]:25", "unix:PATH".')
    role: Literal["mx", "submission", "lmtp"] = key(
        "mx: mail from other servers; submission: mail from own users; lmtp: mail for own domains by LMTP (RFC 2033),"
        " with a reply for each recipient.",
        "mx",
    )
    tls: Literal["off", "starttls", "implicit"] = key("How TLS begins, if at all.", "off")
    mechanisms: tuple[str, ...] = key(
        "The ways to log in that are offered here; empty: all that [[auth]] can check. A listener of role mx offers"
        " none.",
        (),
    )
    auth_without_tls: bool = key("Let users log in without TLS: only for a network that nobody listens to.", False)
    trusted: bool = key(
        "Whoever can connect may send to any domain. For unix: addresses only, whose clients are in no [relay]"
        " network: the mode of the socket then says who that is. Where users log in, it changes nothing.",
        False,
    )
    socket_mode: str = key(
        "Permissions of the socket at a unix: address; connecting takes the right to write, and to enter its directory:"
        " runtime_dir, if this server made it, lets nobody else in.",
        "0660",
    )
    socket_group: str = key(
        "Its group, by name; empty: that of the user the server runs as. The owner is that user.", ""
    )
    without: tuple[str, ...] = key(
        'Extensions of SMTP that are not offered here, such as "DSN" or "SMTPUTF8"; parameters that belong to them are'
        " not known then.",
        (),
    )
    trusted_extensions: tuple[str, ...] = key(
        "Some of FUTURERELEASE, DELIVERBY and MT-PRIORITY, which let mail wait, go back in time or go before others:"
        " offered here to the networks of [relay] too, and to all who come by a trusted unix: address. Users who"
        " log in have them anyway. FUTURERELEASE is meant for submission alone (RFC 4865 4.2).",
        (),
    )
    client_certificates: Literal["off", "ask", "require"] = key(
        "Whether clients are asked for a certificate, to log in with it by EXTERNAL; one that [tls] client_ca does not"
        " vouch for ends the connection.",
        "off",
    )
    early_talk: Literal["ignore", "note", "delay", "refuse"] = key(
        "What becomes of a client that speaks before it is greeted, as programs do that only want to be rid of mail: a"
        " line in the log, a greeting ten seconds later, or 554.",
        "ignore",
    )
    greeting_delay: Seconds = key("How long a client waits for its greeting; see early_talk.", Seconds(0.0), high=60.0)
    proxy_protocol: tuple[Network, ...] = key(
        "Proxies in front of this listener: each of their connections must begin with a PROXY header (1 or 2), whose"
        " client address counts everywhere from then on. Who is listed here can pretend any address.",
        (),
    )
    xclient: tuple[Network, ...] = key(
        "Who may say by XCLIENT for which client and login it speaks, which is as good as being trusted with all.",
        (),
    )
    xforward: tuple[Network, ...] = key("Who may say so by XFORWARD, for the log alone.", ())
    tenant: str = key("The [[tenant]] whose mail comes in here, where nothing else says whose it is.", "")
    priority: int = key(
        "The priority of mail that comes in here without one (MT-PRIORITY, RFC 6710): above 0 it goes before other mail"
        " of its tenant, below 0 behind it.",
        0,
        low=-9,
        high=9,
    )
    limits: Limits = key("[listener.limits]: keys of [limits] that differ here; see there.", Limits())


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """[[tls.certificates]]: a further certificate; the names in it say which clients see it (SNI)."""

    certificate: Path = key("PEM file with the certificate chain.")
    key: Path = key("PEM file with the private key.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """[tls]: the certificates of listeners; changed files are taken into use within seconds."""

    certificate: Path | None = key("PEM file with the certificate chain; for clients that ask for no known name.", None)
    certificates: tuple[KeyPair, ...] = key(
        "Further ones: for other names, or with another type of key for the same name.", ()
    )
    client_ca: Path | None = key(
        "PEM file with the certificates that vouch for those of clients; a client's own may be among them.", None
    )
    key: Path | None = key("PEM file with the private key.", None)  # last, as it hides the function


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """[relay]: who may send to any domain."""

    networks: tuple[Network, ...] = key("Networks that may relay without authentication.", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """[[domain]]: a domain this server is the final destination of."""

    name: str = key("The domain; exactly this one, no wildcard.")
    deliver: NextHop = key("Where its mail goes: maildir:TEMPLATE, lmtp:HOST:PORT, smtp:HOST:PORT, discard:, ...")
    where: str = place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """[[tenant]]: on whose account mail goes; tenants take turns at each site, by their weights.

    Whose a mail is: what a header says (see [tenants]), else whose user is logged in, else, for clients that may
    relay, whose domain the sender has, else what the listener says.
    """

    name: str = key("Its name, in log, queue and filters.")
    weight: int = key("How many turns it has where others of weight 1 have one.", 1, low=1, high=1000)
    priority: int = key("The priority of its mail that has none, before that of the listener.", 0, low=-9, high=9)
    users: tuple[str, ...] = key('Users whose mail is its: names, or "@domain" for all of a domain.', ())
    senders: tuple[str, ...] = key('Domains of senders whose mail is its, or "*.domain" for all below one.', ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """[tenants]: what a header says about whose mail it is."""

    header: str = key(
        "The name of a header field that names the tenant, such as X-Tenant; empty: none. It counts only in mail of"
        " clients in [relay] networks and on listeners that are trusted, and is taken out there.",
        "",
    )
    undeclared: bool = key("Whether it may name tenants that no [[tenant]] declares; these have weight 1.", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """[[source]]: local addresses that mail to other servers leaves from; without one the kernel chooses.

    Each site has a queue, connections and limits of its own for each source. What a mail is sent from is decided by
    its pool (see [[egress]]) and its id, in proportion to the weights, so that it stays the same for all attempts.
    """

    name: str = key("Its name, in queue and filters; a pool of this one alone is called so, too.")
    ipv4: str = key("An IPv4 address of this machine; empty: hosts that have only such ones are not reached.", "")
    ipv6: str = key("An IPv6 address of this machine; likewise.", "")
    ehlo: str = key("What this server calls itself from there (EHLO), which should resolve to it; empty: hostname.", "")
    weight: int = key("How much of a pool's mail it takes where others of weight 1 take one.", 1, low=1, high=1000)
    pools: tuple[str, ...] = key(
        'The pools it is in; that called "default" takes what no [[egress]] names.', ("default",)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """[[egress]]: which pool of sources mail leaves by; the first rule all of whose conditions hold decides.

    That is so when mail is taken in; what is queued keeps its pool. Mail of a pool that is no more takes the default.
    """

    tenant: str = key("Mail of this tenant; empty: of any.", "")
    sender: str = key('Mail whose sender has this domain, or "*.domain" for all below one; "*": any.', "*")
    priority: Literal["any", "urgent", "normal", "bulk"] = key("Mail of a priority above, of, or below 0.", "any")
    pool: str = key("The name of a pool, or of a source.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """[[route]]: where mail for other domains goes; the first match wins, without one MX records decide."""

    domain: str = key('A domain, "*.example.net" for all below it, or "*" for every domain.')
    next_hop: NextHop = key("smtp:HOST[:PORT], lmtp:HOST:PORT, mx, hold:, discard:")
    where: str = place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """[dns]: who answers look-ups."""

    nameservers: tuple[Address, ...] = key("Resolvers to ask; empty: those of /etc/resolv.conf.", ())
    timeout: Seconds = key("How long one look-up may take, all servers and tries together.", Seconds(10.0), low=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """[delivery]: how mail is sent on."""

    connections: int = key("Connections to one site at once.", 20, low=1)
    idle_timeout: Seconds = key("An unused connection is closed after this.", Seconds(5.0), low=0.0)
    connect_timeout: Seconds = key("Wait for a connection and its greeting.", Seconds(30.0), low=0.1)
    command_timeout: Seconds = key("Wait for a reply (RFC 5321 4.5.3.2).", Seconds(300.0), low=0.1)
    data_timeout: Seconds = key("Wait for the reply to the final dot.", Seconds(600.0), low=0.1)
    port: int = key("The port of hosts found by MX.", 25, low=1, high=65535)
    learn: bool = key(
        "Begin with few connections to a site found by MX, and find out by its replies how many it takes, up to"
        " `connections`; false: as many as that, at once.",
        True,
    )
    provider_rules: bool = key(
        "Use the [[shape]] rules for large providers that come with the program, behind those of this file.", True
    )
    probe_cap: Seconds = key(
        "A site that is down is tried again with one message as [retry] says, but no more rarely than this; the rest of"
        " its mail waits.",
        Seconds(600.0),
        low=0.01,
    )
    tls: Literal["off", "may", "require"] = key(
        "may: begin TLS where the other server offers it, whatever its certificate, and go on without where it fails;"
        " require: never deliver without it.",
        "may",
    )
    chunking: bool = key(
        "Send by BDAT (RFC 3030) wherever it is offered, not only what cannot be sent otherwise.", False
    )
    tls_authorities: Path | None = key(
        "A file of the certificates that a server is verified with where it must prove who it is; empty: those of the"
        " system.",
        None,
    )


@dataclass(frozen=True, slots=True)
class CoolDown:
    """What follows when a site gives a reply: `pause` seconds without mail for it, or 0: half of what it was given."""

    pattern: str
    pause: float

    def __str__(self) -> str:
        return f"{self.pattern} = " + (f"pause {self.pause:g}s" if self.pause else "slow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """[[shape]]: limits toward other servers, where what is learned is not enough. For each key the first rule that
    matches a site and has the key counts; all patterns that a rule names must fit, "*" and "?" stand for any text."""

    site: tuple[str, ...] = key('Names of sites as `mta site list` shows them: "smtp:relay.example:25".', ())
    mx: tuple[str, ...] = key('Hosts of which a site has one: "*.example.net".', ())
    domain: tuple[str, ...] = key("Domains whose mail goes to a site; the rule holds for the whole site then.", ())
    source: tuple[str, ...] = key("Names of the addresses that mail goes out from.", ())
    connections: int | None = key("Connections at once, always so many: nothing is learned.", None, low=1)
    connections_floor: int | None = key("Learning goes no lower.", None, low=1)
    connections_ceiling: int | None = key("Learning goes no higher; unset: `connections` of [delivery].", None, low=1)
    connections_start: int | None = key("Where learning begins; unset: 5.", None, low=1)
    rate: Rate | None = key('Messages: "5/s", "100/min", "1000/h" or "none"; a lower rate may be learned.', None)
    messages_per_connection: int | None = key("After so many a connection is closed; 0: any number.", None, low=0)
    recipients_per_message: int | None = key("More are sent in several transactions; 0: any number.", None, low=0)
    cool_down: tuple[CoolDown, ...] = key(
        'What replies call for, as in { "421 4.7.28" = "pause 30m", "4xx too fast" = "slow" }: code, enhanced code and'
        " words, each of which may be left out.",
        (),
    )
    reason: str = key("Why, for those who read it in `mta queue explain` or `mta site show`.", "")
    where: str = place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """[spool]: the message store."""

    segment_size: Octets = key(
        "Size of one log file; they are made whole and used again.",
        Octets(32 << 20),
        low=1 << 20,
        high=128 << 20,
    )
    large_body: Octets = key("Texts above this get a file of their own.", Octets(256 << 10), low=4096, high=512 << 10)
    compact_rate: Octets = key(
        "Octets a second at which mail that stays is copied out of mostly empty log files; 0: never.",
        Octets(8 << 20),
        low=0,
    )
    min_free: Octets = key("Below so much free disk new mail is answered 452.", Octets(64 << 20), low=0)
    min_free_inodes: int = key("Below so many free inodes, where they are counted, likewise.", 1000, low=0)
    durability: Literal["commit", "interval"] = key(
        "commit: a message is answered 250 when it is synced; interval: when it is written, so that a machine that"
        " stops may lose what came last.",
        "commit",
    )
    interval: Seconds = key('Time between syncs with durability = "interval".', Seconds(0.2), low=0.01, high=10.0)

    @property
    def risk(self) -> str:
        """What an operator must be told of the durability; "" where a 250 means on disk."""
        if self.durability == "commit":
            return ""
        return (
            f'[spool] durability is "interval": a message is answered 250 up to {self.interval:g} s before it is on'
            " disk; a machine that stops loses what came meanwhile"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """[log]: the mail log, one line a step of a message."""

    path: Path | None = key("A file to append to; unset: standard error.", None)
    refusals: Rate = key(
        "Lines about refused commands that each receiver may write; those beyond are only counted.", Rate(600, 60)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """[trace]: transcripts of SMTP sessions for `mta trace`, without texts and without what is said in logins."""

    failures: bool = key("Keep those of sessions that failed, were refused, ended early or took long.", True)
    successes: int = key("Keep one in so many of the others too: 1 is all of them, 0 is none.", 0)
    slow: Seconds = key("An answer that takes so long is remarkable.", Seconds(30.0), low=0.1)
    memory: Octets = key("Room in runtime_dir for those of each receiver and each courier.", Octets(4 << 20), low=65536)
    per_peer: int = key("How many of one client or one site there may be among them.", 20, low=1)

    @property
    def tape(self) -> int:
        """Octets of what was said last that each session keeps."""
        return 3072 if self.failures or self.successes else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """[control]: who may use the control socket, besides root and the server's own user, who may do everything."""

    admins: tuple[str, ...] = key("Users, by name or number, who may do everything `mta` can do here.", ())
    viewers: tuple[str, ...] = key("Users who may look at the queue and the server, and change nothing.", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """[history]: what became of mail that has left the queue, for `mta log` and `mta queue explain`."""

    keep: Seconds = key("How long it is kept; 0: there is no history.", Seconds(7 * 86400.0), high=999_999_999.0)
    size: Octets = key("Disk that it may use; the oldest goes first.", Octets(1 << 30), low=8 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """[[auth]]: where users are looked up, in the order of the file; the first that knows a user decides."""

    type: Literal["file", "dovecot", "sql", "hook", "oauth"] = key("What answers.")
    path: Path | None = key('"file": the users file (`mta user`). "dovecot": its auth socket for clients.', None)
    database: str = key('"sql": "sqlite:PATH", or "postgresql://USER@HOST/DATABASE".', "")
    query: str = key(
        '"sql": gives a row for each credential or address of the user named :user, in columns called credential'
        " and address.",
        "",
    )
    hook: str = key('"hook": "module:function", called with name, password and client address.', "")
    introspection: str = key('"oauth": the URL that tells whether a token is good (RFC 7662).', "")
    jwks: str = key('"oauth": the URL of the keys that sign tokens; they are then checked here (RFC 9068).', "")
    issuer: str = key('"oauth": who must have issued a token; empty: anybody whose key is known.', "")
    audience: str = key('"oauth": whom a token must be meant for.', "")
    scope: str = key('"oauth": what a token must permit; empty: anything.', "")
    claim: str = key('"oauth": the field of a token that names the user.', "email")
    client_id: str = key('"oauth": this server\'s name with the introspection service.', "")
    client_secret_file: Path | None = key('"oauth": a file with the password that goes with it.', None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """[login]: what guards logins."""

    delay: Seconds = key("A refusal is sent no sooner than this.", Seconds(2.0))
    user_failures: int = key("Failed logins as one user, after which no more are looked at for a time.", 10, low=1)
    address_failures: int = key("The same from one IPv4 address or IPv6 /64.", 30, low=1)
    lockout: Seconds = key("How long it takes until failed logins are forgotten.", Seconds(900.0), low=1.0)
    threads: int = key("Threads of each receiver that check passwords.", 1, low=1, high=16)
    waiting: int = key("Logins that may wait for such a thread; more are told to try again later.", 64, low=1)
    scram_sha_1: bool = key("Offer SCRAM-SHA-1 too, for old clients.", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file."""

    server: Server
    listener: tuple[Listener, ...]
    tls: Tls = Tls()
    relay: Relay = Relay()
    auth: tuple[Auth, ...] = ()
    login: Login = Login()
    domain: tuple[Domain, ...] = ()
    tenant: tuple[Tenant, ...] = ()
    tenants: Tenants = Tenants()
    source: tuple[Source, ...] = ()
    egress: tuple[Egress, ...] = ()
    route: tuple[Route, ...] = ()
    retry: Retry = Retry()
    notices: Notices = Notices()
    suppression: Suppression = Suppression()
    dns: Dns = Dns()
    limits: Limits = Limits()
    delivery: Delivery = Delivery()
    shape: tuple[Shape, ...] = ()
    spool: Spool = Spool()
    log: Log = Log()
    trace: Trace = Trace()
    control: Control = Control()
    history: History = History()
