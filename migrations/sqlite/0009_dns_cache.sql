-- Answers of DNS lists, for as long as their TTL says. The columns are those of the PostgreSQL schema.
create table dns_cache (
    key     text primary key not null, -- name of the list, blank, reversed address or domain
    answer  text not null,             -- addresses with blanks between; empty when it is not listed
    expires integer not null           -- forgotten from then on
) strict, without rowid;

create index dns_cache_expires on dns_cache (expires);
