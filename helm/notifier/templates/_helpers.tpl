{{/* Names and labels, the configuration as it is mounted, and the refusals that a schema cannot express. */}}

{{- define "notifier.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "notifier.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "notifier.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "notifier.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "notifier.selector" -}}
app.kubernetes.io/name: {{ include "notifier.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "notifier.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "notifier.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "notifier.canarySelector" -}}
app.kubernetes.io/name: {{ include "notifier.name" . }}-canary
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "notifier.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "notifier.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "notifier.image" -}}
{{- $image := printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- if .Values.image.digest -}}{{- $image = printf "%s@%s" .Values.image.repository .Values.image.digest -}}{{- end -}}
{{- $image -}}
{{- end -}}

{{/* A duration of the configuration ("500ms", "20s", "2m") in whole seconds, rounded up. */}}
{{- define "notifier.seconds" -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" (toString .) | float64 -}}
{{- $unit := regexFind "[a-z]+$" (toString .) -}}
{{- $factors := dict "" 1.0 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- mulf $number (get $factors $unit) | ceil | int -}}
{{- end -}}

{{/* The port of an address as the configuration has it: "0.0.0.0:9464", "[::]:9464". */}}
{{- define "notifier.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- define "notifier.brokers" -}}
{{- $url := dig "queue" "url" "" .Values.config -}}
{{- if kindIs "string" $url -}}{{- $url = list $url -}}{{- end -}}
{{- toJson $url -}}
{{- end -}}

{{- define "notifier.prefix" -}}
{{- dig "queue" "prefix" "notifier" .Values.config -}}
{{- end -}}

{{/* What a schema cannot express. Each message names the value and the way out. */}}
{{- define "notifier.refuse" -}}
{{- $config := .Values.config -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: name the registry where your image of notifier is, such as registry.example.com/notifier" -}}
{{- end -}}
{{- range (include "notifier.brokers" . | fromJsonArray) -}}
{{- if not (regexMatch "^amqps?://" .) -}}
{{- fail (printf "config.queue.url is %q, but pods share a broker: give an amqp:// or amqps:// URL" .) -}}
{{- end -}}
{{- if regexMatch "^amqps?://[^/@]*:[^/@]*@" . -}}
{{- fail "config.queue.url holds a password, and a ConfigMap is no place for it: put it into a Secret, name that under `secrets`, and its file as config.queue.password_file" -}}
{{- end -}}
{{- end -}}
{{- if dig "queue" "password" "" $config -}}
{{- fail "config.queue.password stands in a ConfigMap: put it into a Secret, name that under `secrets`, and its file as config.queue.password_file" -}}
{{- end -}}
{{- if dig "log" "subject_key" "" $config -}}
{{- fail "config.log.subject_key stands in a ConfigMap: put it into a Secret, name that under `secrets`, and its file as config.log.subject_key_file" -}}
{{- end -}}
{{- range $path, $listen := dict "config.ops.listen" (dig "ops" "listen" "" $config) "config.api.listen" (dig "api" "listen" "" $config) -}}
{{- if regexMatch "^(127\\.|localhost|\\[::1\\])" $listen -}}
{{- fail (printf "%s is %s, which nothing outside of the pod reaches: leave it out, or give 0.0.0.0 or [::]" $path $listen) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $config "api") (not (dig "api" "tokens_file" "" $config)) -}}
{{- fail "config.api needs tokens_file, since others reach it: the file of a Secret that is named under `secrets`" -}}
{{- end -}}
{{- $folders := keys .Values.secrets | sortAlpha -}}
{{- range (regexFindAll "/etc/notifier/secrets/[^/\"' ]+/" (printf "%s %s" (toJson $config) (toJson .Values.clients)) -1 | uniq) -}}
{{- $folder := trimSuffix "/" (trimPrefix "/etc/notifier/secrets/" .) -}}
{{- if not (has $folder $folders) -}}
{{- fail (printf "config or clients name a file in /etc/notifier/secrets/%s/, but `secrets` has no member %q (it has: %s)" $folder $folder (join ", " $folders | default "none")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (hasKey $config "api")) -}}
{{- fail "ingress.enabled needs config.api, which is what it leads to" -}}
{{- end -}}
{{- if and .Values.clients (dig "registry" "file" "" $config) -}}
{{- fail "clients and config.registry.file are both given; one of them is enough" -}}
{{- end -}}
{{- $least := add (include "notifier.drain" . | int) 5 -}}
{{- if and .Values.terminationGracePeriodSeconds (lt (int .Values.terminationGracePeriodSeconds) (int $least)) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but preStopSeconds and config.shutdown_grace alone take that long: give at least %d, or leave it 0" (int .Values.terminationGracePeriodSeconds) (int $least)) -}}
{{- end -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.kind "keda") (not .Values.autoscaling.keda.managementSecret.name) -}}
{{- fail "autoscaling.kind is keda: autoscaling.keda.managementSecret.name must name the Secret that holds the URL of RabbitMQ's management API, such as https://user:password@rabbitmq:15671/" -}}
{{- end -}}
{{- end -}}

{{/* Seconds from the order to stop until the last attempt has ended. */}}
{{- define "notifier.drain" -}}
{{- $grace := include "notifier.seconds" (get .Values.config "shutdown_grace" | default "20s") | int -}}
{{- add $grace (ternary (int .Values.preStopSeconds) 0 (hasKey .Values.config "api")) -}}
{{- end -}}

{{/* 10 s beyond it, for what waits on a broker that does not answer. */}}
{{- define "notifier.terminationGracePeriodSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- add (include "notifier.drain" . | int) 10 -}}
{{- end -}}
{{- end -}}

{{/* ── the canary ──
An issuer of its own, so that its tokens can end no session anywhere, and that "*" never means it. It signs as the first
of `clients` is signed for, which is known to work. Not where every issuer names its publishers: anyone could speak for this
one. JSON of its issuer's keys and its algorithm; empty where it is off. */}}
{{- define "notifier.canary" -}}
{{- $issuers := default dict .Values.config.issuers -}}
{{- $open := list -}}
{{- range $issuers -}}{{- if not (hasKey . "publishers") -}}{{- $open = append $open . -}}{{- end -}}{{- end -}}
{{- if and .Values.canary.enabled .Values.clients $open -}}
{{- $model := first .Values.clients -}}
{{- $iss := default "*" $model.issuer -}}
{{- if kindIs "slice" $iss -}}{{- $iss = first $iss -}}{{- end -}}
{{- if eq $iss "*" -}}{{- $iss = keys $issuers | sortAlpha | first -}}{{- end -}}
{{- if hasKey $issuers $iss -}}
{{- toJson (dict "keys" (get $issuers $iss).keys "algorithm" (default "RS256" $model.id_token_signed_response_alg)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "notifier.canaryIssuer" -}}
https://notifier-canary.invalid
{{- end -}}

{{/* notifier.yaml: the user's `config` with what the chart knows better. JSON. */}}
{{- define "notifier.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "ops" (merge (dict) (default dict $config.ops) (dict "listen" "0.0.0.0:9464")) -}}
{{- if hasKey $config "api" -}}
{{- $_ := set $config "api" (merge (dict) (default dict $config.api) (dict "listen" "0.0.0.0:8080")) -}}
{{- end -}}
{{- $_ := set $config "log" (merge (dict) (default dict $config.log) (dict "format" "json")) -}}
{{- $registry := default dict $config.registry -}}
{{- if not $registry.sources -}}
{{- $_ := set $registry "file" (default "clients.yaml" $registry.file) -}}
{{- else -}}
{{- $files := list -}}
{{- range $registry.sources -}}{{- $files = append $files (default "" .file) -}}{{- end -}}
{{- if and .Values.clients (not (has "clients.yaml" $files)) -}}
{{- $_ := set $registry "sources" (append $registry.sources (dict "name" "clients" "file" "clients.yaml")) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "registry" $registry -}}
{{- with include "notifier.canary" . -}}
{{- $_ := set $config.issuers (include "notifier.canaryIssuer" $) (dict "keys" (fromJson .).keys) -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* clients.yaml. With the canary there are two issuers, so that a client's can no longer be left out. JSON. */}}
{{- define "notifier.clients" -}}
{{- $clients := list -}}
{{- $canary := include "notifier.canary" . -}}
{{- $issuers := keys (default dict .Values.config.issuers) -}}
{{- range .Values.clients -}}
{{- $client := deepCopy . -}}
{{- if and $canary (not (hasKey $client "issuer")) (eq (len $issuers) 1) -}}
{{- $_ := set $client "issuer" (first $issuers) -}}
{{- end -}}
{{- $clients = append $clients $client -}}
{{- end -}}
{{- if $canary -}}
{{- $uri := printf "http://%s-canary.%s.svc:8080/backchannel-logout" (include "notifier.fullname" .) .Release.Namespace -}}
{{- $client := dict "client_id" "notifier-canary" "issuer" (include "notifier.canaryIssuer" .) "backchannel_logout_uri" $uri -}}
{{- $_ := set $client "id_token_signed_response_alg" (fromJson $canary).algorithm -}}
{{- /* Tried each second and given up after two minutes, so that a test that failed does not stand before the next one. */ -}}
{{- $egress := dict "allow" .Values.canary.egress "allow_http" true -}}
{{- $retry := dict "base" "1s" "factor" 1 "max_delay" "2s" -}}
{{- $_ := set $client "notifier" (dict "egress" $egress "retry" $retry "max_age" "2m") -}}
{{- $clients = append $clients $client -}}
{{- end -}}
{{- toJson $clients -}}
{{- end -}}

{{/* Of the configuration what a worker reads once: only a change of that need roll the pods, the rest is reloaded. */}}
{{- define "notifier.restartsOn" -}}
{{- $config := include "notifier.config" . | fromJson -}}
{{- $delivery := pick (default dict $config.delivery) "slot_wait" "max_in_flight" -}}
{{- $rest := omit $config "issuers" "egress" "registry" "delivery" -}}
{{- toJson (merge (dict "delivery" $delivery) $rest) | sha256sum -}}
{{- end -}}

{{/* The TCP ports that the clients, and the issuers' JWKS, are at. JSON. */}}
{{- define "notifier.clientPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.clientPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- $uris := list -}}
{{- range (include "notifier.clients" . | fromJsonArray) -}}
{{- $uris = append $uris (get . "backchannel_logout_uri") -}}
{{- $proxy := dig "notifier" "proxy" "" . -}}
{{- if kindIs "string" $proxy -}}{{- $uris = append $uris $proxy -}}{{- end -}}
{{- end -}}
{{- range (default dict .Values.config.issuers) -}}{{- $uris = append $uris (get . "jwks_uri") -}}{{- end -}}
{{- range (default dict .Values.config.sources) -}}{{- $uris = append $uris (dig "http" "set" "jwks_uri" "" .) -}}{{- end -}}
{{- range (compact $uris) -}}
{{- $parts := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" -}}
{{- $ports = append $ports (int (default (ternary 80 443 (eq $parts.scheme "http")) $port)) -}}
{{- end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{/* The broker's TCP ports. JSON. */}}
{{- define "notifier.brokerPorts" -}}
{{- $ports := list -}}
{{- $tls := hasKey (default dict .Values.config.queue) "tls" -}}
{{- range (include "notifier.brokers" . | fromJsonArray) -}}
{{- $parts := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" -}}
{{- $ports = append $ports (int (default (ternary 5671 5672 (or $tls (eq $parts.scheme "amqps"))) $port)) -}}
{{- end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{- define "notifier.volumes" -}}
- name: config
  configMap: {name: {{ include "notifier.fullname" . }}}
{{- range $folder, $name := .Values.secrets }}
- name: secret-{{ $folder }}
  secret: {secretName: {{ $name }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* For the canary, which reads `queue` alone: the Secrets that it names. */}}
{{- define "notifier.queueSecrets" -}}
{{- $queue := toJson (default dict .Values.config.queue) -}}
{{- $found := dict -}}
{{- range $folder, $name := .Values.secrets -}}
{{- if contains (printf "/etc/notifier/secrets/%s/" $folder) $queue -}}{{- $_ := set $found $folder $name -}}{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "notifier.mounts" -}}
- {name: config, mountPath: /etc/notifier/config, readOnly: true}
{{- range $folder, $name := .Values.secrets }}
- {name: secret-{{ $folder }}, mountPath: /etc/notifier/secrets/{{ $folder }}, readOnly: true}
{{- end }}
{{- end -}}
