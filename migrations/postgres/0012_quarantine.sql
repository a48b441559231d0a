-- What is in the quarantine. The messages themselves are files on the host that took them in. Times are milliseconds since 1970 by the clock of
-- that host.
create table quarantine (
    id          text collate "C" primary key,    -- of the message, as in replies and log; it names the file, too
    at          bigint not null,
    host        text collate "C" not null,
    category    text collate "C" not null,
    reason      text collate "C" not null,
    detail      text collate "C" not null,
    client      text collate "C" not null,
    sender      text collate "C" not null,       -- empty: the null sender
    sender_path text collate "C" not null,       -- as MAIL had it, with parameters
    size        bigint not null,                 -- of the message
    stored      bigint not null,                 -- of the file
    digest      text collate "C" not null,       -- SHA-256 of the message, hexadecimal
    expires     bigint not null
);

create index quarantine_at on quarantine (at);
create index quarantine_host on quarantine (host, expires);

-- To whom it was to go. state: held; releasing (somebody has begun, and nobody else begins); released.
create table quarantine_recipient (
    id        text collate "C" not null references quarantine (id) on delete cascade,
    position  bigint not null,
    address   text collate "C" not null,
    path      text collate "C" not null,         -- as RCPT had it, with parameters
    state     text collate "C" not null,
    changed   bigint not null,
    reply     text collate "C" not null,         -- of the next hop, to the last release
    primary key (id, position)
);

create index quarantine_recipient_address on quarantine_recipient (address);
