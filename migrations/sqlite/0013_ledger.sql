-- What contentd must remember of messages beyond their session. The columns are those of the PostgreSQL schema.
create table ledger (
    kind    text not null,
    key     text not null,        -- 128 bits, hexadecimal: of message, sender and recipient, or of the message alone
    id      text not null,        -- of the message at that try
    host    text not null,
    reply   text not null,        -- of the next hop
    written integer not null,     -- milliseconds since 1970
    expires integer not null,
    primary key (kind, key, id)
) strict, without rowid;

create index ledger_written on ledger (written);
create index ledger_expires on ledger (expires);
