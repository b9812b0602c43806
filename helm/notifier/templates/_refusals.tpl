{{/* What a schema cannot express. All mistakes are told at once; each names the value and the way out. */}}

{{/* Notes a mistake, of (dict "in" … "text" …). Of many, the first 20. */}}
{{- define "notifier.note" -}}
{{- $_ := set .in "count" (add1 .in.count) -}}
{{- if le (int .in.count) 20 -}}{{- $_ := set .in "texts" (append .in.texts .text) -}}{{- end -}}
{{- end -}}

{{/* "; did you mean …?", of (dict "word" … "among" …): the known word from which it differs by a letter or two at one place. */}}
{{- define "notifier.near" -}}
{{- $word := lower .word | replace "_" "" | replace "-" "" -}}
{{- $ways := list (regexQuoteMeta $word) -}}
{{- range $i, $_ := until (len $word) -}}
{{- $before := substr 0 $i $word | regexQuoteMeta -}}
{{- range (list $i (add1 $i) (add $i 2)) -}}
{{- $ways = append $ways (printf "%s.{0,2}%s" $before (substr (min . (len $word) | int) (len $word) $word | regexQuoteMeta)) -}}
{{- end -}}
{{- end -}}
{{- $pattern := printf "^(%s)$" (join "|" $ways) -}}
{{- $found := list -}}
{{- range .among -}}
{{- if regexMatch $pattern (lower . | replace "_" "") -}}{{- $found = append $found . -}}{{- end -}}
{{- end -}}
{{- with $found -}}; did you mean {{ first . }}?{{- end -}}
{{- end -}}

{{- define "notifier.refuse" -}}
{{- $found := dict "count" 0 "texts" list -}}
{{- $at := dict "root" . "in" $found "known" (.Files.Get "files/known.json" | fromJson) -}}
{{- include "notifier.refuseTexts" $at -}}
{{- include "notifier.refuseNames" $at -}}
{{- include "notifier.refuseConfig" $at -}}
{{- include "notifier.refuseSecrets" $at -}}
{{- include "notifier.refuseClients" $at -}}
{{- include "notifier.refuseEnv" $at -}}
{{- include "notifier.refuseObjects" $at -}}
{{- include "notifier.refuseScaling" $at -}}
{{- include "notifier.refuseCanary" $at -}}
{{- if $found.texts -}}
{{- $more := sub $found.count (len $found.texts) -}}
{{- $texts := ternary (append $found.texts (printf "and %d more" $more)) $found.texts (gt (int $more) 0) -}}
{{- fail (printf "the values have mistakes:\n- %s" (join "\n- " $texts)) -}}
{{- end -}}
{{- end -}}

{{- define "notifier.refuseTexts" -}}
{{- $in := .in -}}
{{- $values := .root.Values -}}
{{- range $setting, $why := .known.gone -}}
{{- include "notifier.refuseGone" (dict "in" $in "value" $values.config "names" (splitList "." $setting) "path" "config" "why" $why) -}}
{{- end -}}
{{- range $name, $why := .known.goneValues -}}
{{- if hasKey $values $name -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "%s %s; remove it" $name $why)) -}}
{{- end -}}
{{- end -}}
{{- range $path, $rule := .known.texts -}}
{{- $value := $values -}}
{{- range splitList "." $path -}}
{{- if and (kindIs "map" $value) (hasKey (default dict $value) .) -}}{{- $value = get $value . -}}{{- else -}}{{- $value = 0 -}}{{- end -}}
{{- end -}}
{{- if and (kindIs "string" $value) (not (regexMatch $rule.pattern $value)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "%s is %q; it %s" $path $value $rule.says)) -}}
{{- end -}}
{{- end -}}
{{- range $path, $resources := dict "resources" $values.resources "canary.resources" (include "notifier.resources" (dict "root" .root "own" $values.canary.resources) | fromJson) -}}
{{- range $what := list "cpu" "memory" -}}
{{- $request := dig "requests" $what "" $resources -}}
{{- $limit := dig "limits" $what "" $resources -}}
{{- if and $request $limit (lt (include "notifier.amount" $limit | float64) (include "notifier.amount" $request | float64)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "%s.limits.%s is %v, less than the %v of its requests, and no pod would be made: raise the limit or lower the request" $path $what $limit $request)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Notes a removed setting, of (dict "in" … "value" … "names" its path within value, "path" of value, "why" …). `*`: each entry. */}}
{{- define "notifier.refuseGone" -}}
{{- $at := . -}}
{{- $entries := ternary (default dict .value) dict (or (kindIs "map" .value) (kindIs "slice" .value)) -}}
{{- if ne (first .names) "*" -}}
{{- $entries = ternary (pick (default dict .value) (first .names)) dict (kindIs "map" .value) -}}
{{- end -}}
{{- range $key, $entry := $entries -}}
{{- $path := printf "%s.%v" $at.path $key -}}
{{- if rest $at.names -}}
{{- include "notifier.refuseGone" (dict "in" $at.in "value" $entry "names" (rest $at.names) "path" $path "why" $at.why) -}}
{{- else -}}
{{- include "notifier.note" (dict "in" $at.in "text" (printf "%s %s; remove it" $path $at.why)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An amount of memory in bytes, or of cpu in cores. */}}
{{- define "notifier.amount" -}}
{{- $units := dict "m" 0.001 "M" 1e6 "G" 1e9 "T" 1e12 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit | default 1.0) -}}
{{- end -}}

{{- define "notifier.refuseNames" -}}
{{- $values := .root.Values -}}
{{- if and (contains "." .root.Release.Name) (not $values.fullnameOverride) -}}
{{- include "notifier.note" (dict "in" .in "text" (printf "the release is called %s, but the name of a Service has no dot: set fullnameOverride, such as %s" .root.Release.Name (replace "." "-" .root.Release.Name))) -}}
{{- end -}}
{{- if not $values.image.repository -}}
{{- include "notifier.note" (dict "in" .in "text" "image.repository is empty: name the registry where your image of notifier is, such as registry.example.com/notifier") -}}
{{- end -}}
{{- end -}}

{{- define "notifier.refuseConfig" -}}
{{- $config := .root.Values.config -}}
{{- $in := .in -}}
{{- if not (include "notifier.brokers" .root | fromJsonArray) -}}
{{- include "notifier.note" (dict "in" $in "text" "config.queue.url is missing: give the broker's, such as amqp://rabbitmq.rabbitmq.svc:5672/") -}}
{{- end -}}
{{- if not $config.issuers -}}
{{- include "notifier.note" (dict "in" $in "text" "config.issuers is missing: name at least one, with the file of its key in a Secret of `secrets`") -}}
{{- end -}}
{{- range (include "notifier.brokers" .root | fromJsonArray) -}}
{{- if not (regexMatch "^amqps?://([^/?@]*@)?([^/?@:\\[\\]]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]+)?([/?]|$)" .) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config.queue.url is %q, but pods share a broker: give an amqp:// or amqps:// URL, such as amqp://rabbitmq.rabbitmq.svc:5672/" (regexReplaceAll "//[^/@]*@" . "//…@"))) -}}
{{- end -}}
{{- end -}}
{{- range $path, $listen := dict "config.ops.listen" (dig "ops" "listen" "" $config) "config.api.listen" (dig "api" "listen" "" $config) "config.web.listen" (dig "web" "listen" "" $config) -}}
{{- if regexMatch "^(127\\.|localhost|\\[::1\\])" $listen -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "%s is %s, which nothing outside of the pod reaches: leave it out, or give 0.0.0.0, or * for IPv6 too" $path $listen)) -}}
{{- end -}}
{{- end -}}
{{- $ports := dict -}}
{{- $effective := include "notifier.config" .root | fromJson -}}
{{- range $name := list "ops" "api" "web" -}}
{{- $listen := dig $name "listen" "" $effective -}}
{{- $port := regexFind "[0-9]+$" $listen -}}
{{- if and $port (hasKey $ports $port) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config.%s.listen is %s, but config.%s.listen has that port already: give another" $name $listen (get $ports $port))) -}}
{{- end -}}
{{- $_ := set $ports $port $name -}}
{{- end -}}
{{- if and (hasKey $config "api") (not (dig "api" "tokens_file" "" $config)) (not (dig "api" "console" "oidc" "" $config)) -}}
{{- include "notifier.note" (dict "in" $in "text" "config.api needs tokens_file, since others reach it: the file of a Secret that is named under `secrets`") -}}
{{- end -}}
{{- if and (dig "api" "console" "oidc" "" $config) (not (dig "api" "console" "enabled" false $config)) -}}
{{- include "notifier.note" (dict "in" $in "text" "config.api.console.oidc is for a console that is served: set config.api.console.enabled to true") -}}
{{- end -}}
{{- if not (contains "/kubernetes.io/serviceaccount" (toJson .root.Values.extraVolumeMounts)) -}}
{{- range $iss, $issuer := default dict $config.issuers -}}
{{- range $nth, $key := (default dict $issuer).keys -}}
{{- $login := dig "vault" "kubernetes" dict $key -}}
{{- if and $login (not $login.token_file) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config.issuers[%q].keys[%d].vault.kubernetes needs token_file: pods have no token of their service account; mount one by extraVolumes, as docs/kubernetes.md shows" $iss $nth)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .root.Values.clients (dig "registry" "file" "" $config) -}}
{{- include "notifier.note" (dict "in" $in "text" "clients and config.registry.file are both given; one of them is enough") -}}
{{- end -}}
{{- end -}}

{{/* Secrets in a ConfigMap, and files of Secrets that are not mounted. */}}
{{- define "notifier.refuseSecrets" -}}
{{- $in := .in -}}
{{- $values := .root.Values -}}
{{- $text := printf "%s %s %s" (toJson $values.config) (toJson $values.clients) (toJson $values.canary) -}}
{{- $names := regexFindAll "\"(password|subject_key|client_secret)\":\"" $text -1 | uniq -}}
{{- range $names -}}
{{- $name := trimSuffix "\":\"" . | trimPrefix "\"" -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config or clients have %s, which must not be in a ConfigMap: put it into a Secret, name that under `secrets`, and its file as %s_file" $name $name)) -}}
{{- end -}}
{{- if regexMatch "\"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\"]*:[^/?#@\"]+@" $text -}}
{{- include "notifier.note" (dict "in" $in "text" "a URL in config or clients (config.queue.url, a proxy, a database) holds a password, which must not be in a ConfigMap: put it into a Secret, name that under `secrets`, and its file instead (password_file, url_file, or {file: …})") -}}
{{- end -}}
{{- if regexMatch "\"headers\":\\{([^{}]|\\{[^{}]*\\})*\"(?i:(proxy-)?authorization|cookie|[a-z0-9-]*(key|token|secret))\":\"" $text -}}
{{- include "notifier.note" (dict "in" $in "text" "`headers` in config or clients holds a secret, which must not be in a ConfigMap: put it into a Secret, name that under `secrets`, and write {file: /etc/notifier/secrets/…}") -}}
{{- end -}}
{{- range (regexFindAll "\"([a-z_]+_)?file\":\"[^/\"][^\"]*" $text -1 | uniq) -}}
{{- $file := splitList "\"" . | last -}}
{{- if ne $file "clients.yaml" -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config or clients name the file %s, which would be looked for in the ConfigMap: give its whole path, such as /etc/notifier/secrets/keys/%s" $file $file)) -}}
{{- end -}}
{{- end -}}
{{- range (regexFindAll "\"([0-9]{1,3}\\.){3}[0-9]{1,3}/([12]?[0-9]|3[0-2])\"" $text -1 | uniq) -}}
{{- $network := trimAll "\"" . -}}
{{- $parts := regexSplit "[./]" $network -1 -}}
{{- $address := 0 -}}
{{- range $i := until 4 -}}{{- $address = add (mul $address 256) (index $parts $i | atoi) -}}{{- end -}}
{{- $size := 1 -}}
{{- range until (sub 32 (index $parts 4 | atoi) | int) -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- if mod $address $size -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config, clients or canary.egress have the network %s, whose address goes on behind the /%s: workers take no such one" $network (index $parts 4))) -}}
{{- end -}}
{{- end -}}
{{- $folders := keys $values.secrets | sortAlpha -}}
{{- range (regexFindAll "/etc/notifier/secrets/[^/\"' ]+/" $text -1 | uniq) -}}
{{- $folder := trimSuffix "/" (trimPrefix "/etc/notifier/secrets/" .) -}}
{{- if not (has $folder $folders) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "config or clients name a file in /etc/notifier/secrets/%s/, but `secrets` has no member %q (it has: %s)" $folder $folder (join ", " $folders | default "none"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One pass over the clients, however many there are. */}}
{{- define "notifier.refuseClients" -}}
{{- $in := .in -}}
{{- $config := .root.Values.config -}}
{{- $issuers := default dict $config.issuers -}}
{{- $all := keys $issuers | sortAlpha -}}
{{- $defaults := dig "registry" "defaults" dict $config -}}
{{- $http := dig "egress" "allow_http" false $config -}}
{{- $known := .known.client -}}
{{- $names := dict -}}
{{- $seen := dict -}}
{{- range $i, $client := .root.Values.clients -}}
{{- range $name, $_ := $client -}}
{{- if not (hasKey $known $name) -}}{{- if not (hasKey $names $name) -}}{{- $_ := set $names $name $i -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $of := $all -}}
{{- $named := $client.issuer -}}
{{- if $named -}}
{{- if kindIs "string" $named -}}{{- $of = list $named -}}{{- else -}}{{- $of = $named -}}{{- end -}}
{{- if has "*" $of -}}{{- $of = $all -}}{{- end -}}
{{- else if gt (len $all) 1 -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%d (%s): issuer is required, since there are %d issuers" $i $client.client_id (len $all))) -}}
{{- $of = list -}}
{{- end -}}
{{- $allowed := $http -}}
{{- range $iss := $of -}}
{{- if not (hasKey $issuers $iss) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%d (%s): issuer %s is not among config.issuers" $i $client.client_id $iss)) -}}
{{- end -}}
{{- $key := printf "%s %s" $iss $client.client_id -}}
{{- if hasKey $seen $key -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%d: client_id %s is registered at %s already, by clients.%v; remove one of the two" $i $client.client_id $iss (get $seen $key))) -}}
{{- end -}}
{{- $_ := set $seen $key $i -}}
{{- with get $defaults $iss -}}{{- $allowed = dig "egress" "allow_http" $allowed . -}}{{- end -}}
{{- end -}}
{{- with $client.notifier -}}{{- $allowed = dig "egress" "allow_http" $allowed . -}}{{- end -}}
{{- with $client.backchannel_logout_uri -}}
{{- if not (regexMatch "^(?i:https?)://[^/?#@\\s\\\\]+([/?][^#\\s\\\\]*)?$" .) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%d (%s): backchannel_logout_uri is %q, but must be an absolute URI that begins with https://, without user, blank or fragment" $i $client.client_id (regexReplaceAll "//[^/@]*@" . "//…@"))) -}}
{{- else if and (not $allowed) (not (regexMatch "^(?i:https)" .)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%d (%s): backchannel_logout_uri is http; to allow it, set notifier.egress.allow_http of this client, or config.egress.allow_http" $i $client.client_id)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $i := $names -}}
{{- with include "notifier.near" (dict "word" $name "among" (keys $known | sortAlpha)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "clients.%v: there is no member %s%s" $i $name .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "; it is gone: …", of (dict "name" variable "gone" settings that are gone). */}}
{{- define "notifier.gone" -}}
{{- $name := .name -}}
{{- range $setting, $why := .gone -}}
{{- $variable := printf "NOTIFIER_%s" (replace "." "__" $setting | upper) -}}
{{- if or (eq $name $variable) (hasPrefix (printf "%s__" $variable) $name) -}}; it {{ $why }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables that override `config`. Others are the image's and the libraries'. */}}
{{- define "notifier.refuseEnv" -}}
{{- $in := .in -}}
{{- $known := .known.variables -}}
{{- $gone := .known.gone -}}
{{- $seen := dict -}}
{{- range .root.Values.env -}}
{{- $name := .name -}}
{{- if or (hasKey $seen $name) (eq $name "NOTIFIER_CONFIG") -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "env has %s %s" $name (ternary "twice; remove one" "which the chart sets; put what it holds into config" (hasKey $seen $name)))) -}}
{{- end -}}
{{- $_ := set $seen $name true -}}
{{- if and (hasPrefix "NOTIFIER_" $name) (ne $name "NOTIFIER_CONFIG") -}}
{{- if not (hasKey $known $name) -}}
{{- $near := include "notifier.gone" (dict "name" $name "gone" $gone) | default (include "notifier.near" (dict "word" $name "among" (keys $known | sortAlpha))) | default "; `notifier schema config` lists the settings, and two underscores stand for a dot" -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "env has %s, but there is no such setting%s" $name $near)) -}}
{{- else -}}
{{- if regexMatch "^NOTIFIER_(OPS|API|WEB|REGISTRY|[A-Z]+__LISTEN|QUEUE__PREFIX|REGISTRY__FILE|SHUTDOWN_GRACE)$" $name -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "env has %s, but the chart derives ports, probes and grace periods from config: set it there" $name)) -}}
{{- end -}}
{{- $plain := default "" .value -}}
{{- $from := default dict .valueFrom -}}
{{- $secret := and (get $known $name) (or $plain (hasKey $from "configMapKeyRef")) -}}
{{- if or $secret (regexMatch "://[^/?#@]*:[^/?#@]+@|\\b(password|subject_key|client_secret)\"?:" $plain) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "env has %s with a secret in clear: take it from a Secret, by valueFrom.secretKeyRef" $name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "notifier.refuseObjects" -}}
{{- $values := .root.Values -}}
{{- $api := hasKey $values.config "api" -}}
{{- $in := .in -}}
{{- range $what, $wanted := dict "ingress.enabled" $values.ingress.enabled "httpRoute.enabled" $values.httpRoute.enabled (printf "service.type %s" $values.service.type) (ne $values.service.type "ClusterIP") -}}
{{- if and $wanted (not $api) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "%s needs config.api, which is what it leads to" $what)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.tlsSecret) (not $values.ingress.withoutTls) -}}
{{- include "notifier.note" (dict "in" $in "text" "ingress.tlsSecret is empty, so tokens of the API would be sent in clear: name the Secret of a certificate, or set ingress.withoutTls if TLS ends elsewhere") -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- include "notifier.note" (dict "in" $in "text" "httpRoute.parentRefs is empty: name the Gateway, [{name: …, namespace: …}], preferably with the sectionName of a listener that has TLS") -}}
{{- end -}}
{{- if $values.relayRoute.enabled -}}
{{- $config := $values.config -}}
{{- if not $values.relayRoute.parentRefs -}}
{{- include "notifier.note" (dict "in" $in "text" "relayRoute.parentRefs is empty: name the Gateway of the identity server's host, [{name: …, namespace: …}]") -}}
{{- end -}}
{{- if not (and $config.relays (hasKey $config "web")) -}}
{{- include "notifier.note" (dict "in" $in "text" "relayRoute.enabled needs config.relays and config.web, which are what it leads to") -}}
{{- end -}}
{{- range $name, $relay := default dict $config.relays -}}
{{- $iss := include "notifier.relayed" (dict "config" $config "relay" $relay) -}}
{{- if not (dig $iss "jwks_uri" "" (default dict $config.issuers)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "relayRoute needs config.issuers[%q].jwks_uri, the address at which clients read the keys of the relay %s" $iss $name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := pick $values.podLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "podLabels has %s, by which the chart finds its pods: leave it out (nameOverride changes the name)" $name)) -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" "helm.sh/chart" -}}
{{- range $name, $_ := $values.commonLabels -}}
{{- if has $name $own -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "commonLabels has %s, which the chart sets: leave it out" $name)) -}}
{{- end -}}
{{- end -}}
{{- $set := list "serviceAccountName" "serviceAccount" "automountServiceAccountToken" "enableServiceLinks" "securityContext" "imagePullSecrets" "hostAliases" "priorityClassName" "nodeSelector" "tolerations" "terminationGracePeriodSeconds" "activeDeadlineSeconds" "restartPolicy" "initContainers" "containers" "volumes" "topologySpreadConstraints" "affinity" -}}
{{- range $name, $_ := $values.podSpecExtra -}}
{{- if has $name $set -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "podSpecExtra has %s, which the chart sets from other values: leave it out (README.md of the chart lists the values)" $name)) -}}
{{- end -}}
{{- end -}}
{{- $shared := dict "hostNetwork" "with which no NetworkPolicy applies to the pods" "hostPID" "which shows them the processes of the node" "hostIPC" "which shows them the shared memory of the node" "shareProcessNamespace" "with which containers beside the worker can read its keys" -}}
{{- range $name, $reason := $shared -}}
{{- if index $values.podSpecExtra $name -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "podSpecExtra has %s, %s: leave it out" $name $reason)) -}}
{{- end -}}
{{- end -}}
{{- $update := default dict $values.strategy.rollingUpdate -}}
{{- if and (eq $values.strategy.type "RollingUpdate") (has (toString $update.maxSurge) (list "0" "0%")) (has (toString $update.maxUnavailable) (list "0" "0%")) -}}
{{- include "notifier.note" (dict "in" $in "text" "strategy.rollingUpdate has maxSurge and maxUnavailable 0, so that no worker could be replaced: give one of them 1") -}}
{{- end -}}
{{- $least := add (include "notifier.drain" .root | int) 5 -}}
{{- if and $values.terminationGracePeriodSeconds (lt (int $values.terminationGracePeriodSeconds) (int $least)) -}}
{{- include "notifier.note" (dict "in" $in "text" (printf "terminationGracePeriodSeconds is %d, but preStopSeconds and config.shutdown_grace alone take that long: give at least %d, or leave it 0" (int $values.terminationGracePeriodSeconds) (int $least))) -}}
{{- end -}}
{{- end -}}

{{- define "notifier.refuseScaling" -}}
{{- $values := .root.Values -}}
{{- $several := or (ne $values.autoscaling.kind "none") (gt (int $values.replicaCount) 1) -}}
{{- if and $values.spool.claim (eq $values.spool.accessMode "ReadWriteOnce") $several -}}
{{- include "notifier.note" (dict "in" .in "text" "spool.claim is ReadWriteOnce, and pods on other nodes would not start: give a claim with ReadWriteMany and set spool.accessMode, leave spool.claim out (each pod then has an emptyDir), or set replicaCount to 1") -}}
{{- end -}}
{{- $folder := dig "spool" "folder" "" $values.config -}}
{{- if and $values.spool.claim (not $folder) -}}
{{- include "notifier.note" (dict "in" .in "text" "spool.claim has no effect without config.spool.folder, where it is mounted") -}}
{{- end -}}
{{- if and $folder (not (hasPrefix "/" $folder)) -}}
{{- include "notifier.note" (dict "in" .in "text" (printf "config.spool.folder is %q; give an absolute path, such as /var/lib/notifier/spool, where the chart mounts a volume" $folder)) -}}
{{- end -}}
{{- $scaling := $values.autoscaling -}}
{{- if and (ne $scaling.kind "none") (lt (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- include "notifier.note" (dict "in" .in "text" "autoscaling.maxReplicas is less than autoscaling.minReplicas") -}}
{{- end -}}
{{- if and (eq $scaling.kind "hpa") (not (dig "requests" "cpu" "" $values.resources)) -}}
{{- include "notifier.note" (dict "in" .in "text" "autoscaling.kind is hpa, which scales by the share of resources.requests.cpu, and there is none: give one, such as 250m") -}}
{{- end -}}
{{- if eq $scaling.kind "keda" -}}
{{- if not $scaling.keda.managementSecret.name -}}
{{- include "notifier.note" (dict "in" .in "text" "autoscaling.kind is keda: autoscaling.keda.managementSecret.name must name the Secret that holds the URL of RabbitMQ's management API, such as https://user:password@rabbitmq:15671/") -}}
{{- end -}}
{{- $vhost := include "notifier.vhost" .root -}}
{{- if and $scaling.keda.vhost (ne $scaling.keda.vhost $vhost) -}}
{{- include "notifier.note" (dict "in" .in "text" (printf "autoscaling.keda.vhost is %q, but the queues are in %q, by config.queue.url: leave it empty" $scaling.keda.vhost $vhost)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "notifier.refuseCanary" -}}
{{- $values := .root.Values -}}
{{- $canary := $values.canary -}}
{{- if $canary.enabled -}}
{{- $files := list -}}
{{- range (default dict $values.config.issuers) -}}{{- range .keys -}}{{- $files = append $files .file -}}{{- end -}}{{- end -}}
{{- if or (not $canary.keyFile) (has $canary.keyFile $files) -}}
{{- include "notifier.note" (dict "in" .in "text" (printf "canary.keyFile %s: the canary signs with a separate key, made by `notifier keys generate`, in a Secret that is named under `secrets`" (ternary "is that of an issuer" "is empty" (ne $canary.keyFile "")))) -}}
{{- end -}}
{{- if not (or $canary.clusterIP $canary.egress) -}}
{{- include "notifier.note" (dict "in" .in "text" "canary.egress and canary.clusterIP are empty: give the network of the cluster's Services, such as [10.96.0.0/12], or a free address in it as canary.clusterIP") -}}
{{- end -}}
{{- if dig "registry" "file" "" $values.config -}}
{{- include "notifier.note" (dict "in" .in "text" "canary.enabled and config.registry.file do not go together: name your file in config.registry.sources, [{name: clients, file: …}], and the chart adds the canary's") -}}
{{- end -}}
{{- end -}}
{{- end -}}
