-- What was told to whom and why: every deferral and every first pass, for `octroi why` and `octroi greylist stats`. Written in batches
-- a moment later, lost in a crash without harm, forgotten after greylist.keep_explained. Times are milliseconds since 1970.
create table explain (
    id            bigint not null primary key, -- the id in the reply, as a number of 50 bits
    at            bigint not null,             -- by the clock of the host that decided
    host          text not null,
    verdict       text not null,
    reason        text not null,
    state         text not null,               -- protocol state
    client        text not null,               -- address
    client_name   text not null,
    helo          text not null,
    sender        text not null,
    recipient     text not null,
    instance      text not null,
    key_client    text collate "C" not null,   -- the key in table greylist; '' when there was none
    key_sender    text collate "C" not null,
    key_recipient text collate "C" not null,
    system        text not null,               -- whom the client belongs to: its organisational domain, else its key
    left_ms       bigint,                      -- what it had still to wait
    waited_ms     bigint,                      -- what it had waited when it passed; null for deferrals
    trace         text not null,               -- what each check said, a line each
    expires       bigint not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index explain_expires on explain (expires);
