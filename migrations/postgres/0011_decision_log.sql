-- Every decision, when [decision_log] keep says so: one partition a day, made ahead and dropped whole by the daemons. Nothing is ever changed
-- in it. Times are milliseconds since 1970 by the clock of the host that decided.
create table decision_log (
    at          bigint not null,
    id          bigint not null,              -- as in replies and log
    host        text collate "C" not null,
    client      text collate "C" not null,
    client_name text collate "C" not null,
    helo        text collate "C" not null,
    sender      text collate "C" not null,    -- empty: the null sender
    recipient   text collate "C" not null,
    instance    text collate "C" not null,
    queue_id    text collate "C" not null,
    state       text collate "C" not null,
    decided_by  text collate "C" not null,    -- the check
    verdict     text collate "C" not null,
    reason      text collate "C" not null,
    fact        text collate "C" not null,
    took_us     bigint not null
) partition by range (at);

create index decision_log_id on decision_log (id);
create index decision_log_recipient on decision_log (recipient, at);
