-- What contentd must remember of messages beyond their session. kind: delivered (the next hop has it, and the client may not have heard so),
-- crashed and late (a message during whose inspection the daemon ended or the time ran out). Hardly any message ever has a row here.
create table ledger (
    kind    text collate "C" not null,
    key     text collate "C" not null,    -- 128 bits, hexadecimal: of message, sender and recipient, or of the message alone
    id      text collate "C" not null,    -- of the message at that try
    host    text collate "C" not null,
    reply   text collate "C" not null,    -- of the next hop
    written bigint not null,              -- clock of the database, milliseconds since 1970
    expires bigint not null,
    primary key (kind, key, id)
);

create index ledger_written on ledger (written);
create index ledger_expires on ledger (expires);
