-- liquibase formatted sql
-- changeset notifier:session_client runOnChange:true

-- The clients of each session of the authorization server, for notifier-spring-boot-starter.
CREATE TABLE IF NOT EXISTS notifier_session_client (
    session_key VARCHAR(255) NOT NULL,
    sid VARCHAR(64) NOT NULL,
    client_id VARCHAR(100) NOT NULL,
    iss VARCHAR(255) NOT NULL,
    sub VARCHAR(255) NOT NULL,
    created_at BIGINT NOT NULL,
    node VARCHAR(36) NOT NULL,
    PRIMARY KEY (sid, client_id, iss),
    UNIQUE (session_key, sid, client_id, iss)
);

-- The processes that have sessions in memory.
CREATE TABLE IF NOT EXISTS notifier_node (
    node VARCHAR(36) NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (node)
);
