{{/* Names, labels, image, and what texts are read into. A name may be `on` or `2026`: quote it wherever it is put in. */}}

{{- define "notifier.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of a Service begins with a letter, a release need not. */}}
{{- define "notifier.fullname" -}}
{{- $name := include "notifier.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if and (not $full) (not (regexMatch "^[a-z]" .Release.Name)) -}}
{{- $full = printf "%s-%s" (ternary $name .Chart.Name (regexMatch "^[a-z]" $name)) .Release.Name -}}
{{- else if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which pods are found, of (dict "root" $ "part" "canary"); the workers have no part. */}}
{{- define "notifier.selector" -}}
app.kubernetes.io/name: {{ printf "%s%s" (include "notifier.name" .root) (empty .part | ternary "" (printf "-%s" .part)) | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end -}}

{{/* Labels of an object, of the same; "own": further ones, which come before those of commonLabels. */}}
{{- define "notifier.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{ include "notifier.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- with mergeOverwrite (dict) .root.Values.commonLabels (default dict .own) }}
{{ toYaml . }}
{{- end }}
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

{{/* The port of an address as the configuration has it: "0.0.0.0:9464", "*:9464". */}}
{{- define "notifier.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* The port of a URL, of (dict "url" … "default" …). */}}
{{- define "notifier.portOf" -}}
{{- regexFind ":[0-9]+$" (regexReplaceAll "^[^:/]*://([^/?#@]*@)?([^/?#]*).*$" .url "${2}") | trimPrefix ":" | default .default -}}
{{- end -}}

{{/* Seconds from the order to stop until the last attempt has ended. */}}
{{- define "notifier.drain" -}}
{{- $grace := include "notifier.seconds" (get .Values.config "shutdown_grace" | default "20s") | int -}}
{{- add $grace (ternary (int .Values.preStopSeconds) 0 (or (hasKey .Values.config "api") (hasKey .Values.config "web"))) -}}
{{- end -}}

{{/* 10 s beyond it: a worker ends within 3 s, also where the broker does not answer. */}}
{{- define "notifier.terminationGracePeriodSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- add (include "notifier.drain" . | int) 10 -}}
{{- end -}}
{{- end -}}
