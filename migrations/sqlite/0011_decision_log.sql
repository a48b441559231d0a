-- Every decision, when [decision_log] keep says so. The columns are those of the PostgreSQL schema; old rows are deleted in batches.
create table decision_log (
    at          integer not null,
    id          integer not null,    -- as in replies and log
    host        text not null,
    client      text not null,
    client_name text not null,
    helo        text not null,
    sender      text not null,       -- empty: the null sender
    recipient   text not null,
    instance    text not null,
    queue_id    text not null,
    state       text not null,
    decided_by  text not null,       -- the check
    verdict     text not null,
    reason      text not null,
    fact        text not null,
    took_us     integer not null
) strict;

create index decision_log_at on decision_log (at);
create index decision_log_id on decision_log (id);
