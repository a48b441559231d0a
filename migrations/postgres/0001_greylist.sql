-- Greylist triplets. Times are milliseconds since 1970 by the clock of the database, so that hosts need not agree.
-- Collation "C": keys are compared byte by byte, as the daemon sorts them, whatever locale the database has.
create table greylist (
    client     text collate "C" not null, -- network, such as 192.0.2.0/24
    sender     text collate "C" not null, -- in normal form; '' is the null sender
    recipient  text collate "C" not null, -- '' when several recipients share one request at DATA
    first_seen bigint not null,           -- first try of this waiting time
    last_seen  bigint not null,           -- latest try; of a triplet that has passed, at most an hour old
    tries      bigint not null,           -- requests before it passed, the first one included
    passes     bigint not null,           -- 0 while it waits; then written requests since it passed
    expires    bigint not null,           -- forgotten from then on; changes only when it passes or is renewed
    primary key (client, sender, recipient)
) with (
    -- Room on the page keeps updates of waiting triplets, which change no indexed column, inside it (HOT).
    fillfactor = 80,
    -- Most rows are written once, tried again never and expire: vacuum early and without pauses.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

create index greylist_expires on greylist (expires);
