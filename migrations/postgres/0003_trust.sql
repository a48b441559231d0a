-- Clients that have shown that they come again. Times are milliseconds since 1970 by the clock of the database.
create table trust (
    key          text collate "C" primary key, -- '192.0.2.0/24', '192.0.2.0/24 example.org' (sender's domain), 'spf:example.org'
    passes       bigint not null,              -- first passes, at most one counted an hour
    last_counted bigint not null,
    expires      bigint not null               -- forgotten from then on
);

create index trust_expires on trust (expires);
