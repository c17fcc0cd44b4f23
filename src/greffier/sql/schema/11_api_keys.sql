-- API keys: for programs.  Only a hash is kept; the key is shown once, when it is made.

set search_path = greffier;

create table api_keys (
    id uuid primary key,
    key_hash bytea not null unique,
    -- user: acts as one user; service: acts for the user it names; ops: sees how the service does
    scope text not null check (scope in ('user', 'service', 'ops')),
    user_id text,
    name text not null,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    check ((scope = 'user') = (user_id is not null))
);

-- serves list_keys
create index api_keys_by_user on api_keys (user_id, created_at) where user_id is not null;
