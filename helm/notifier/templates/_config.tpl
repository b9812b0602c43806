{{/* The configuration and the clients as the pods read them, and what can be seen from them. */}}

{{- define "notifier.brokers" -}}
{{- $url := dig "queue" "url" list .Values.config -}}
{{- ternary (list $url) $url (kindIs "string" $url) | toJson -}}
{{- end -}}

{{- define "notifier.prefix" -}}
{{- dig "queue" "prefix" "notifier" .Values.config -}}
{{- end -}}

{{/* The virtual host of the queues, as KEDA is given it. */}}
{{- define "notifier.vhost" -}}
{{- $path := "" -}}
{{- range (include "notifier.brokers" . | fromJsonArray | first | default "" | list) -}}
{{- $path = regexReplaceAll "^amqps?://[^/?]*/?([^?]*).*$" . "${1}" -}}
{{- end -}}
{{- replace "%2F" "/" $path | replace "%2f" "/" | default "/" -}}
{{- end -}}

{{/* ── the canary ── A separate issuer, key and client: its tokens end no session anywhere, and "*" never means it. */}}
{{- define "notifier.canaryIssuer" -}}
https://notifier-canary.invalid
{{- end -}}

{{- define "notifier.canaryUrl" -}}
http://{{ include "notifier.fullname" . }}-canary.{{ .Release.Namespace }}.svc:8080/backchannel-logout
{{- end -}}

{{- define "notifier.canaryClient" -}}
{{- $canary := .Values.canary -}}
{{- $uri := include "notifier.canaryUrl" . -}}
{{- $client := dict "client_id" "notifier-canary" "issuer" (include "notifier.canaryIssuer" .) "backchannel_logout_uri" $uri -}}
{{- $_ := set $client "id_token_signed_response_alg" $canary.algorithm -}}
{{- $address := $canary.clusterIP -}}
{{- $own := list -}}
{{- with $address -}}{{- $own = list (printf "%s/%s" . (contains ":" . | ternary "128" "32")) -}}{{- end -}}
{{- /* Tried each second and given up after two minutes, so that a test that failed does not stand before the next one. */ -}}
{{- $egress := dict "allow" (default $canary.egress $own) "allow_http" true -}}
{{- $retry := dict "base" "1s" "max_delay" "2s" -}}
{{- $_ := set $client "notifier" (dict "egress" $egress "retry" $retry "max_age" "2m") -}}
{{- toJson $client -}}
{{- end -}}

{{/* notifier.yaml: the user's `config` with what the chart knows better. JSON. */}}
{{- define "notifier.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "ops" (merge (dict) (default dict $config.ops) (dict "listen" "0.0.0.0:9464")) -}}
{{- if hasKey $config "api" -}}
{{- $_ := set $config "api" (merge (dict) (default dict $config.api) (dict "listen" "0.0.0.0:8080" "console" (dict "enabled" false))) -}}
{{- end -}}
{{- if hasKey $config "web" -}}
{{- $_ := set $config "web" (merge (dict) (default dict $config.web) (dict "listen" "0.0.0.0:8090")) -}}
{{- end -}}
{{- $_ := set $config "log" (merge (dict) (default dict $config.log) (dict "format" "json")) -}}
{{- $registry := default dict $config.registry -}}
{{- if not $registry.sources -}}
{{- $_ := set $registry "file" (default "clients.yaml" $registry.file) -}}
{{- else -}}
{{- $files := list -}}
{{- range $registry.sources -}}{{- $files = append $files (default "" .file) -}}{{- end -}}
{{- if and (or .Values.clients .Values.canary.enabled) (not (has "clients.yaml" $files)) -}}
{{- $_ := set $registry "sources" (append $registry.sources (dict "name" "clients" "file" "clients.yaml")) -}}
{{- end -}}
{{- if and .Values.canary.enabled (eq (len (default dict $config.issuers)) 1) -}}{{/* two, with the canary's */}}
{{- range $registry.sources -}}
{{- if not (or .issuer .keycloak) -}}{{- $_ := set . "issuer" (keys $config.issuers | first) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "registry" $registry -}}
{{- if .Values.canary.enabled -}}
{{- $_ := set $config "issuers" (default dict $config.issuers) -}}
{{- $_ := set $config.issuers (include "notifier.canaryIssuer" $) (dict "keys" (list (dict "file" .Values.canary.keyFile))) -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* clients.yaml. With the canary there are two issuers, so that a client's can no longer be left out. */}}
{{- define "notifier.clients" -}}
{{- if not .Values.canary.enabled -}}
{{- toYaml .Values.clients -}}
{{- else -}}
{{- $clients := deepCopy .Values.clients -}}
{{- $issuers := keys (default dict .Values.config.issuers) -}}
{{- if eq (len $issuers) 1 -}}
{{- range $clients -}}{{- if not (hasKey . "issuer") -}}{{- $_ := set . "issuer" (first $issuers) -}}{{- end -}}{{- end -}}
{{- end -}}
{{- append $clients (include "notifier.canaryClient" . | fromJson) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* "true" if the API serves the console, which it does only if the values set it. */}}
{{- define "notifier.console" -}}
{{- dig "api" "console" "enabled" false (include "notifier.config" . | fromJson) | ternary "true" "" -}}
{{- end -}}

{{/* Of the configuration what a worker reads once: only a change of that need roll the pods, the rest is reloaded. */}}
{{- define "notifier.restartsOn" -}}
{{- $config := include "notifier.config" . | fromJson -}}
{{- $delivery := pick (default dict $config.delivery) "max_in_flight" -}}
{{- $rest := omit $config "issuers" "egress" "registry" "delivery" -}}
{{- toJson (merge (dict "delivery" $delivery) $rest) | sha256sum -}}
{{- end -}}

{{/* The issuer of a relay, of (dict "config" … "relay" …): by default the only one. */}}
{{- define "notifier.relayed" -}}
{{- default (keys (default dict .config.issuers) | sortAlpha | first) (default dict .relay).issuer -}}
{{- end -}}

{{/* The TCP ports of all that workers ask, beside the broker: clients, JWK Sets, Vault, upstreams, relays' servers, the provider of the console's users. JSON. */}}
{{- define "notifier.clientPorts" -}}
{{- $ports := dict -}}
{{- $first := list -}}
{{- $uris := list -}}
{{- range .Values.networkPolicy.clientPorts -}}{{- $first = append $first (int .) -}}{{- $_ := set $ports (toString .) true -}}{{- end -}}
{{- range .Values.clients -}}
{{- with .backchannel_logout_uri -}}
{{- $parts := urlParse . -}}
{{- $_ := set $ports (regexFind ":[0-9]+$" $parts.host | trimPrefix ":" | default (ternary "80" "443" (eq $parts.scheme "http"))) true -}}
{{- end -}}
{{- if .id_token_encrypted_response_alg -}}{{- $uris = append $uris .jwks_uri -}}{{- end -}}
{{- if eq (default "" (default dict .notifier).front_channel) "server" -}}{{- $uris = append $uris .frontchannel_logout_uri -}}{{- end -}}
{{- with .notifier -}}{{- with .proxy -}}{{- if kindIs "string" . -}}{{- $uris = append $uris . -}}{{- end -}}{{- end -}}{{- end -}}
{{- end -}}
{{- range (default dict .Values.config.issuers) -}}{{- with . -}}
{{- $uris = append $uris .jwks_uri -}}
{{- range .keys -}}{{- with .vault -}}{{- $uris = append $uris .address -}}{{- end -}}{{- end -}}
{{- end -}}{{- end -}}
{{- range (default dict .Values.config.upstreams) -}}{{- with . -}}
{{- $uris = concat $uris (list (coalesce .jwks_uri .discovery .issuer) (dig "http" "url" "" (default dict .resolve))) -}}
{{- end -}}{{- end -}}
{{- range (default dict .Values.config.relays) -}}{{- with . -}}{{- $uris = append $uris (coalesce .jwks_uri .issuer) -}}{{- end -}}{{- end -}}
{{- with dig "console" "oidc" dict (default dict .Values.config.api) -}}{{- $uris = append $uris (coalesce .discovery .issuer) -}}{{- end -}}
{{- range (default dict .Values.config.sources) -}}
{{- $uris = append $uris (dig "http" "set" "jwks_uri" "" .) -}}
{{- if dig "http" "sns" "" . -}}{{- $uris = append $uris "https://sns.amazonaws.com" -}}{{- end -}}
{{- end -}}
{{- range (compact $uris | uniq) -}}
{{- $_ := set $ports (include "notifier.portOf" (dict "url" . "default" (ternary "80" "443" (hasPrefix "http:" .)))) true -}}
{{- end -}}
{{- $rest := list -}}
{{- range (keys $ports | sortAlpha) -}}{{- if not (has (int .) $first) -}}{{- $rest = append $rest (int .) -}}{{- end -}}{{- end -}}
{{- toJson (concat $first $rest) -}}
{{- end -}}

{{/* The broker's TCP ports. JSON. */}}
{{- define "notifier.brokerPorts" -}}
{{- $ports := list -}}
{{- $tls := hasKey (default dict .Values.config.queue) "tls" -}}
{{- range (include "notifier.brokers" . | fromJsonArray) -}}
{{- $ports = append $ports (include "notifier.portOf" (dict "url" . "default" (ternary "5671" "5672" (or $tls (hasPrefix "amqps:" .)))) | int) -}}
{{- end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{/* The Secrets that `queue` names, by folder, for pods that read nothing else. JSON. */}}
{{- define "notifier.queueSecrets" -}}
{{- $queue := toJson (default dict .Values.config.queue) -}}
{{- $found := dict -}}
{{- range $folder, $name := .Values.secrets -}}
{{- if contains (printf "/etc/notifier/secrets/%s/" $folder) $queue -}}{{- $_ := set $found $folder $name -}}{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
