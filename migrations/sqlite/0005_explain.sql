-- What was told to whom and why: every deferral and every first pass. The columns are those of the PostgreSQL schema.
create table explain (
    id            integer not null primary key, -- the id in the reply, as a number of 50 bits
    at            integer not null,
    host          text not null,
    verdict       text not null,
    reason        text not null,
    state         text not null,                -- protocol state
    client        text not null,                -- address
    client_name   text not null,
    helo          text not null,
    sender        text not null,
    recipient     text not null,
    instance      text not null,
    key_client    text not null,                -- the key in table greylist; '' when there was none
    key_sender    text not null,
    key_recipient text not null,
    system        text not null,                -- whom the client belongs to: its organisational domain, else its key
    left_ms       integer,                      -- what it had still to wait
    waited_ms     integer,                      -- what it had waited when it passed; null for deferrals
    trace         text not null,                -- what each check said, a line each
    expires       integer not null
) strict;

create index explain_expires on explain (expires);
