"""What servers say, by class: the table of `mta.mail.replyclass`.

A paragraph is a class, how the codes must begin where not all will do ("4", or "550.4.1": 550 with the detail 4.1), and
its phrases. The first phrase that is found decides, so the order of the paragraphs matters: what names its cause comes
before what only names a word that others use, too. A phrase is whole words in lower case without punctuation; "*" is
any ending.

`tests/unit/mail/replies.txt` has the replies that this was made with; whoever adds a phrase adds its reply there.
"""

from __future__ import annotations

from typing import Final

WORDS: Final = """
loop:
  mail loop, mailloop, hop count exceeded, too many hops, too many received, routing loop, loops back to

content:
  duplicate header

unknown-user 550.4.1:
  recipient address rejected access denied

greylist 4:
  greylist*, graylist*, grey list*, gray list*, grey listed, postgrey, come back later, come back in

authentication:
  because spf authentication, because dkim authentication

tls:
  sent over a tls connection

relay-denied:
  relaying denied, relay access denied

rate:
  too quickly, rate that prevents, receivingrate*, too much email in a short, rate limit*, ratelimit*,
  connection rate, message rate, too many connections, too many concurrent, concurrent connections,
  connection frequency, frequency limited, too many sessions, max connections, maximum number of connections,
  too many messages, too many mails, too many emails, too many errors, too many bad, too many invalid recipients,
  too many recipients this, too many recipients in the last, too many unknown, sending too fast, too fast,
  slow down, unexpected volume, unusual rate, unusual volume, unusual amount, daily relay quota,
  sending limit exceeded, exceeded sending limit, send limit exceeded, sending quota, hourly limit, daily limit,
  hourly quota, daily quota, daily message quota, daily sending, too much mail from, too many open connections,
  received this hour, hourly sending, peak smtp, throttl*, try fewer, mails per, messages per, recipients per,
  per hour, per minute, per day, traffic volume, excessive number, excessive rate, server busy, burst limit, flood*,
  tss04, ts01, ts02, ts03, rp 001, rp 002, rp 003, exceeded the rate, exceeded the maximum number, message limit,
  is overloading, deferred due to user complaints, deferred due to excessive

authentication:
  dmarc*, dkim*, spf, spf1, openspf*, sender policy framework, sender id, purported responsible address,
  unauthenticated email, unauthenticated mail, sender is unauthenticated, required authentication level,
  does not have authentication information, authentication checks failed, failed authentication checks,
  not allowed to send from, not authorized to send from, not authorized to send on behalf, mismatches client ip,
  invalid ip for sending mail of domain, arc seal, arc validation

content:
  uribl*, surbl*, blacklisted url*, blacklisted link, url in this, url in message, url in your, links in,
  spam content, spam pattern, spam message, message is spam, it is spam, classified as spam, flagged as spam,
  detected as spam, considered spam, identified as spam, looks like spam, appears to be spam, spam detected,
  likely spam, probable spam, spam score, spam or virus, rejected as spam, marked as spam, reject spam,
  because of spam, due to spam, dt spm, ube id, junkmail, junk mail, likely unsolicited, virus*, malware, infected,
  trojan, phishing*, ph01, spamtext, mcspamsignature*, dangerous attachment, potentially dangerous,
  potential security issue, content presents, attachment*, content rejected, content denied, content blocked,
  content filter*, message content, content policy, unsolicited content, mail content, header error,
  duplicate header, multiple subject, multiple from, multiple addresses, rfc 5322, rfc5322 compliant, rfc 2822,
  bare lf, bare received, bare line*, 8 bit data, 8bit data, headers too large, line limit, line too long,
  lines too long, message id header, from header, media error, spamassassin, message filtered, suspicious content,
  hvu

sender:
  sender address, sender verify, sender verification, verify sender, sender domain, sender rejected, sender denied,
  sender unknown, unknown sender, invalid sender, bad sender, sender is invalid, domain of sender,
  domain of the sender, mail from domain, mailfrom domain, envelope sender, from domain is invalid, from domain,
  backscatter, callout*, unroutable sender, email address is not verified

reputation:
  blacklist*, black list*, blocklist*, block list*, blocked list, denylist*, dnsbl*, rbl, rbls, drbl, shxbl,
  spamhaus*, spamcop*, sorbs*, barracudacentral*, abuseat*, uceprotect*, invaluement*, ivmsip*, cloudmark,
  senderscore*, trend micro, dnsbl lookup, ipcheck*, mailspike*, listed at, listed by, listed on,
  found on one or more, blocked using, reputation, banned sending, banned ip, blocked ip, ip blocked, ip is blocked,
  ip address is blocked, sending ip, ip address has been, ip has been, your ip, ip was rejected,
  ip address was rejected, bad ip, host network, part of their network, ptr, rdns, reverse dns, reverse lookup,
  reverse hostname, cannot find your, find your reverse, ip name lookup, ip lookup, no reverse, fcrdns,
  forward confirmed, unverifyable sending, client host rejected, generic hostname, dynamic ip*, dynamic range,
  dynamically assigned, dial up, dialup, residential, smtp server of your isp, ip not in, open relay, open proxy,
  blocked for abuse, blocked due to abuse, for spamming, spammer*, spam source, currently sending spam, sent spam,
  poor, untrusted ip, geographical location, geoip, connections not accepted from, not accept messages from servers,
  weren t sent, hl rep, tss07, bl21, not allowed to connect, refused your ip, aup cdrbl, suspicious due to,
  ip source bloquee, helo command rejected, ehlo command rejected, invalid helo, problem occurred

content:
  spam, unsolicited, phish*, this message was blocked

rate 4:
  temporarily deferred due to, service refused please try later

mailbox-full:
  mailbox full, mailbox is full, full mailbox, mailbox for user is full, inbox is full, inbox full, box full,
  over quota, overquota*, quota exceed*, exceeded quota, exceeded storage, exceeds quota, exceeded the quota,
  exceeded its quota, quotaexceeded*, disk quota, quota violation, quota limit, quota is full, mailbox quota,
  out of storage, storage space, storage allocation, storage limit, storage quota,
  mapiexceptionshutoffquotaexceeded, mailbox size limit, mailbox limit, account is full, too much mail in,
  mailfolder is full, mailbox has exceeded, not enough space in, not enough room in, blocks limit, boite pleine,
  boîte pleine, postfach voll, quota, bereikt

size:
  too large, too big, toobig, size limit, size exceed*, exceeds size, fixed maximum message, exceeds maximum,
  exceeds the maximum, exceeds the size, larger than, message size, maximum message, message length exceeds,
  recipsizelimit, too many recipients, too long for

relay-denied:
  relay access, relay denied, relaying denied, relaying is denied, relaying not, relay not, not relay*,
  relaying disallowed, no relay*, unable to relay, cannot relay, allowed to relay, permitted to relay,
  relaying prohibited, insecure mail relay, rcpthosts, not a local domain, not local domain, non local, no relaying,
  authentication required, requires authentication, smtp authentication, must authenticate, authenticate first,
  log in first, was not authenticated, tenantattribution*, not hosted here, handle mail for, non accepted domain,
  unauthenticated senders, authrequired, invalid credentials, username and password not, authentication credentials,
  authentication failed

disabled-user:
  account disabled, is disabled, been disabled, user disabled, disableduser, mailbox disabled, disabled recipient,
  disabled mailbox, account has been closed, account closed, account is closed, mailbox closed, suspended,
  deactivated, inactive, inactiveuser, is not active, not activated, not yet activated, no longer active,
  discontinued, no longer available, no longer accepts, no longer on, no longer in use, no longer exists,
  no longer works, no longer used, expired account, account has expired, account expired, frozen, blocked account,
  account is blocked, account is locked, mailbox locked, temporary locked, recipient account is blocked, has moved,
  has left, left the company, mailbox owner has changed, terminated

tls:
  starttls, tls required, requires tls, require tls, encryption required, encryption needed, encrypted connection,
  over tls, without tls, not support tls, tls handshake, tls is required, requiretls, must use tls,
  secure connection

dns:
  mx list for

system 4:
  service unavailable, temporarily rejected

system:
  queue file write, temporary lookup, local error, internal error, internal system error, internal server,
  internal resource, server error, configuration error, configuration problem, config error, system error,
  insufficient system, insufficient disk, disk space, disk full, out of memory, insufficient resources,
  resources temporarily, backpressure, shutting down, going down, maintenance, service currently unavailable,
  temporarily unavailable, system temporarily, unable to process, could not load, recipient error, upstream error,
  load too high, load average, system load, overloaded, blame it on, unverified address, verification in progress,
  not accepting connections, not accepting network, mailer error, database error, command died, temporary error,
  temporary local problem, temporary failure in

dns:
  host unknown, unknown host, unknown domain, domain unknown, no such domain, domain not found,
  domain name not found, domain does not exist, domain doesn t exist, domain not exist*, invalid domain, bad domain,
  host not found, null mx, nullmx, no mx, dns query, dns error, dns failure, does not accept mail, nxdomain,
  bad destination system, no data known, tenant or domain not found, domain is not reachable,
  unrouteable mail domain, domain may not exist

unknown-user:
  user unknown, unknown user*, unknown local*, unknown recipient*, recipient unknown, unknown address,
  address unknown, unknown mailbox, unknown account, unknown or illegal, unknown alias, unknown virtual,
  addressee unknown, no such user*, no such mailbox*, no such recipient, no such person, no such address,
  no such account, no such local, no such id, no such email, nosuchuser, no mailbox, no mail box, user not found,
  recipient not found, recipnotfound, recipientnotfound, mailbox not found, account not found, address not found,
  does not exist, doesn t exist, not exist, non existent, nonexistent, user doesn t have, not our user,
  not our customer, not known, not a known, unknown to, is unknown, invalid recipient*, invalid user*,
  invalid mailbox, invalid account, invalid address, address invalid, recipient address is invalid, bad recipient,
  bad destination mailbox, bad address, illegal user, illegal alias, undeliverable address, unrouteable address,
  unroutable address, mailbox unavailable, mailbox is unavailable, mailbox name not allowed, not a valid,
  is not valid, recipient unrecognized, recipient invalid, not a registered, not registered, not on this server,
  not here, no account, no one here, cannot find recipient, cannot deliver mail for, rcp p1, destinataire inconnu,
  utilisateur inconnu, adresse destinataire invalide, sconosciuto, unbekannt, existiert nicht, nie istnieje,
  inexistente, desconocido, not listed in directory, isn t a user, user invalid, no valid recipients,
  no local mailbox

policy:
  policy, policies, violation, access denied, administrative prohibition, prohibited, preferences, message denied,
  mail rejected, message rejected, email rejected, rejected by, not authorized, not permitted, restricted,
  not allowed, administratively, denied by, not accepted for

unknown-user 5:
  address rejected, recipient rejected

greylist 451:
  temporary failure please try again later

connection:
  connection timed out, connection refused, connection reset, connection lost, timed out, timeout,
  unable to contact, unable to connect, could not connect, no route to, network is unreachable, lost connection,
  broken pipe

protocol:
  bad sequence, improper sequence, out of sequence, need mail, need rcpt, need helo, helo first, syntax error,
  not implemented, unrecognized command, command unrecognized, unknown command, remote protocol error, pipelining

policy:
  blocked, denied, refused, rejected, unwanted
"""
