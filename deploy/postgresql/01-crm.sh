#!/bin/sh
# Run once, when the database is made: the CRM's account, its tables and some rows. The account owns its tables and
# nothing else, so that a command of the reconciler can reach no other data.
set -eu
: "${CRM_PASSWORD:?is empty: make deploy/.env, by \`make up\` or deploy/make-env}"

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set password="$CRM_PASSWORD" <<'SQL'
CREATE ROLE crm LOGIN PASSWORD :'password';
CREATE DATABASE crm OWNER crm;
REVOKE CONNECT ON DATABASE crm FROM PUBLIC;
SQL

PGPASSWORD=$CRM_PASSWORD psql --set ON_ERROR_STOP=1 --username crm --dbname crm <<'SQL'
CREATE TABLE account (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    tier        text,
    version     bigint NOT NULL DEFAULT 1,
    modified_at timestamptz NOT NULL DEFAULT now(),
    modified_by text NOT NULL DEFAULT 'crm'
);

CREATE TABLE contact (
    id          text PRIMARY KEY,
    account_id  text REFERENCES account (id),
    name        text NOT NULL,
    email       text,
    phone       text,
    tags        jsonb NOT NULL DEFAULT '[]',
    status      text NOT NULL DEFAULT 'active',
    version     bigint NOT NULL DEFAULT 1,
    modified_at timestamptz NOT NULL DEFAULT now(),
    modified_by text NOT NULL DEFAULT 'crm'
);

-- Whoever writes a row, its version grows and its time is told: that is what compare-and-set and `latest_wins` rest on.
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.modified_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER account_stamp BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER contact_stamp BEFORE UPDATE ON contact FOR EACH ROW EXECUTE FUNCTION stamp();

INSERT INTO account (id, name, tier) VALUES ('a-1', 'Northwind', 'gold'), ('a-2', 'Contoso', NULL);
INSERT INTO contact (id, account_id, name, email, phone) VALUES
    ('c-1', 'a-1', 'Ana Lima', 'ana@northwind.example', '+49 30 1234'),
    ('c-2', 'a-1', 'Bo Chen', 'bo@northwind.example', NULL),
    ('c-3', 'a-2', 'Cy Diaz', 'cy@contoso.example', '+34 91 5678');
SQL
