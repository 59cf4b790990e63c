"""The settings about mail that did not arrive: when it is tried again, who is told, who is not written to any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mta.config.declare import Octets, Seconds, key, made, place
from mta.config.wording import ENGLISH, Wording

Blame = Literal[
    "unknown-user",
    "disabled-user",
    "mailbox-full",
    "content",
    "reputation",
    "authentication",
    "sender",
    "policy",
    "rate",
    "greylist",
    "relay-denied",
    "size",
    "dns",
    "tls",
    "connection",
    "protocol",
    "system",
    "loop",
    "expired",
    "suppressed",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """[[retry.rule]]: other times for some mail. The first rule counts whose patterns all fit, and [retry] for all that
    it does not say; "*" and "?" stand for any text."""

    domain: tuple[str, ...] = key('Domains of recipients: "*.example.net".', ())
    site: tuple[str, ...] = key('Names of sites as `mta site list` shows them: "smtp:relay.example:25".', ())
    tenant: tuple[str, ...] = key("On whose account it goes.", ())
    classes: tuple[Blame, ...] = key("What the last reply blames, as the mail log says it (`class=`).", ())
    first: Seconds | None = key("Wait after the first failed attempt.", None, low=0.01)
    factor: float | None = key("Each further wait is so many times longer.", None, low=1.0, high=10.0)
    cap: Seconds | None = key("The longest wait.", None, low=0.01)
    jitter: float | None = key("Each wait is varied by up to this share of it.", None, low=0.0, high=0.9)
    expiry: Seconds | None = key("Mail older than this goes back to its sender, after a last attempt.", None, low=0.01)
    delay_warning: Seconds | None = key("When its sender is told that it is late; 0: never.", None, low=0.0)
    quarantine: Seconds | None = key(
        "For so long the [[source]] that got such a reply sends nothing more to the site, if its pool has another one,"
        " and the mail is tried from there at once, even if it was refused for good; 0: not at all. Meant for"
        ' `classes = ["reputation"]`.',
        None,
    )
    where: str = place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """[retry]: when deferred mail is tried again."""

    first: Seconds = key("Wait after the first failed attempt.", Seconds(300.0), low=0.01)
    factor: float = key("Each further wait is so many times longer.", 2.0, low=1.0, high=10.0)
    cap: Seconds = key("The longest wait.", Seconds(4 * 3600.0), low=0.01)
    ambiguous_wait: Seconds = key(
        "Wait before mail is sent again whose last attempt was cut short between the end of the text and the reply, so"
        " that it may have been delivered. By then the other host has stored what it took, and can tell the second copy"
        " by its Message-ID; mail that it did not take waits no longer than after any failed attempt.",
        Seconds(300.0),
        low=0.01,
    )
    jitter: float = key("Each wait is varied by up to this share of it, both ways.", 0.1, low=0.0, high=0.9)
    expiry: Seconds = key(
        "Mail older than this goes back to its sender, after a last attempt.", Seconds(5 * 86400.0), low=0.01
    )
    delay_warning: Seconds = key(
        "When an attempt fails and the mail is older than this, its sender is told once that it is late; 0: never."
        " Who is told: those who asked for it (NOTIFY=DELAY), and those of `[notices] warn`.",
        Seconds(4 * 3600.0),
        low=0.0,
    )
    greylist_first: Seconds = key(
        "The first wait after a reply of the class greylist, where `first` is longer and the reply names no time"
        " itself. A [[retry.rule]] for that class goes first.",
        Seconds(300.0),
        low=0.01,
    )
    greylist_most: Seconds = key(
        "The longest wait that such a reply may ask for; what it asks for within is kept to, whatever `first` says.",
        Seconds(3600.0),
        low=0.01,
    )
    rule: tuple[RetryRule, ...] = key("[[retry.rule]]: other times for some mail; see there.", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """[suppression]: addresses that are not written to any more, for each tenant; see `mta suppress`."""

    classes: tuple[Blame, ...] = key(
        "What a host must blame when it refuses a recipient for good, so that later mail for him fails at once:"
        ' ["unknown-user", "disabled-user"] are worth it for bulk mail. Empty: only what operators add.',
        (),
    )
    keep: Seconds = key("How long such an address stays on the list; 0: for ever.", Seconds(180 * 86400.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """[notices]: what senders are told of their mail."""

    warn: Literal["users", "all", "asked"] = key(
        "Who is told of late mail without having said what he wants to hear: users: who had logged in; all: everybody,"
        " forged senders included; asked: nobody.",
        "users",
    )
    return_size: Octets = key(
        "The largest message that a notice of failure returns whole where its sender asked for that (RET=FULL); of"
        " larger ones it has the headers, as without RET.",
        Octets(64 << 10),
        low=0,
        high=16 << 20,
    )
    language: str = key(
        'Which words notices have for people: "en", "de", or the name of a file LANGUAGE.toml in `templates`.', "en"
    )
    templates: Path | None = key(
        "A folder with such files, which go before those that come with the program; the reports for programs stay as"
        " they are.",
        None,
    )
    postmaster: str = key(
        "Whom to tell when mail with the null reverse-path, such as a notice, fails for good; empty: nobody, and it is"
        " in the mail log only.",
        "",
    )
    double_bounces: tuple[Blame, ...] = key(
        "Tell the postmaster of failures of these classes only; empty: of all. See `class=` in the mail log.", ()
    )
    wording: Wording = made(ENGLISH)
