-- Access lists that every host of the farm has in force, beside the list files of each. Times are milliseconds since 1970.
create table acl (
    list    text collate "C" not null check (list in ('client_whitelist', 'client_blacklist', 'sender_whitelist',
                'sender_blacklist', 'recipient_whitelist', 'recipient_blacklist')),
    entry   text collate "C" not null,  -- as in a list file: 192.0.2.0/24, example.org, user@example.org, /regular expression/
    comment text not null default '',
    author  text not null default '',
    created bigint not null default (extract(epoch from clock_timestamp()) * 1000)::bigint,
    expires bigint,                     -- not in force from then on; null: no end
    primary key (list, entry)
);

-- One row; the number grows with every change, whoever makes it and with whatever program.
create table acl_version (
    one     boolean primary key default true check (one),
    version bigint not null
);
insert into acl_version (version) values (0);

create function acl_changed() returns trigger language plpgsql as $$
begin
    update acl_version set version = version + 1;
    perform pg_notify('octroi_acl', '');
    return null;
end
$$;

create trigger acl_changed after insert or update or delete or truncate on acl
    for each statement execute function acl_changed();
