{{/* Gives each value that is null its default, and removes other nulls. For null Helm removes the chart's default; in a chart
that is part of another it passes the null on. Each template of objects begins with this. */}}
{{- define "notifier.settle" -}}
{{- $values := .Values -}}
{{- range $path, $default := (.Files.Get "files/known.json" | fromJson).defaults -}}{{/* a section before its members */}}
{{- $at := $values -}}
{{- range initial (splitList "." $path) -}}{{- $at = get $at . -}}{{- end -}}
{{- $name := splitList "." $path | last -}}
{{- if kindIs "invalid" (index $at $name) -}}{{- $_ := set $at $name $default -}}{{- end -}}
{{- end -}}
{{- include "notifier.prune" $values -}}
{{- end -}}

{{/* Removes what is null from a mapping and from those in it. */}}
{{- define "notifier.prune" -}}
{{- range $name, $value := . -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $ $name -}}
{{- else if kindIs "map" $value -}}{{- include "notifier.prune" $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
