-- What is in the quarantine. The columns are those of the PostgreSQL schema.
create table quarantine (
    id          text primary key,     -- of the message, as in replies and log; it names the file, too
    at          integer not null,
    host        text not null,
    category    text not null,
    reason      text not null,
    detail      text not null,
    client      text not null,
    sender      text not null,        -- empty: the null sender
    sender_path text not null,        -- as MAIL had it, with parameters
    size        integer not null,     -- of the message
    stored      integer not null,     -- of the file
    digest      text not null,        -- SHA-256 of the message, hexadecimal
    expires     integer not null
) strict, without rowid;

create index quarantine_at on quarantine (at);
create index quarantine_host on quarantine (host, expires);

-- To whom it was to go. state: held; releasing (somebody has begun, and nobody else begins); released.
create table quarantine_recipient (
    id        text not null references quarantine (id) on delete cascade,
    position  integer not null,
    address   text not null,
    path      text not null,          -- as RCPT had it, with parameters
    state     text not null,
    changed   integer not null,
    reply     text not null,          -- of the next hop, to the last release
    primary key (id, position)
) strict, without rowid;

create index quarantine_recipient_address on quarantine_recipient (address);
