-- Clients that have shown that they come again. Times are milliseconds since 1970. The columns are those of the PostgreSQL schema.
create table trust (
    key          text primary key not null, -- '192.0.2.0/24', '192.0.2.0/24 example.org' (sender's domain), 'spf:example.org'
    passes       integer not null,          -- first passes, at most one counted an hour
    last_counted integer not null,
    expires      integer not null           -- forgotten from then on
) strict, without rowid;

create index trust_expires on trust (expires);
