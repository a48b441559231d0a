-- Greylist triplets. Times are milliseconds since 1970. The columns are those of the PostgreSQL schema.
create table greylist (
    client     text not null,    -- network, such as 192.0.2.0/24
    sender     text not null,    -- in normal form; '' is the null sender
    recipient  text not null,    -- '' when several recipients share one request at DATA
    first_seen integer not null, -- first try of this waiting time
    last_seen  integer not null, -- latest try; of a triplet that has passed, at most an hour old
    tries      integer not null, -- requests before it passed, the first one included
    passes     integer not null, -- 0 while it waits; then written requests since it passed
    expires    integer not null, -- forgotten from then on
    primary key (client, sender, recipient)
) strict, without rowid;

create index greylist_expires on greylist (expires);
