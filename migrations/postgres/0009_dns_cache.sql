-- Answers of DNS lists, shared by the hosts of a farm for as long as their TTL says. A cache: empty after a crash of the database, and not on
-- a standby. Times are milliseconds since 1970 by the clock of the database.
create unlogged table dns_cache (
    key     text collate "C" primary key, -- name of the list, blank, reversed address or domain
    answer  text not null,                -- addresses with blanks between; empty when it is not listed
    expires bigint not null               -- forgotten from then on
);

create index dns_cache_expires on dns_cache (expires);
