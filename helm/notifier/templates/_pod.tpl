{{/* What all pods of the chart have: account, rights, places, and the files of the configuration. */}}

{{- define "notifier.pod" -}}
serviceAccountName: {{ include "notifier.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSpecExtra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "notifier.container" -}}
image: {{ include "notifier.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{/* Of (dict "root" $ "own" …), as JSON: a quota of limits.cpu refuses pods without one. So these have that of the workers, if they have none. */}}
{{- define "notifier.resources" -}}
{{- $limits := dig "limits" dict (default dict .own) | default dict -}}
{{- $cpu := dig "limits" "cpu" "" (default dict .root.Values.resources) -}}
{{- if and $cpu (not (hasKey $limits "cpu")) -}}
{{- $limits = merge (dict "cpu" $cpu) $limits -}}
{{- end -}}
{{- merge (dict "limits" $limits) (default dict .own) | toJson -}}
{{- end -}}

{{/* With NOTIFIER_CONFIG, so that `kubectl exec … -- notifier status` finds the configuration. */}}
{{- define "notifier.env" -}}
- {name: NOTIFIER_CONFIG, value: /etc/notifier/config/notifier.yaml}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of (dict "root" $ "secrets" …): Secrets by folder. */}}
{{- define "notifier.volumes" -}}
- name: config
  configMap: {name: {{ include "notifier.fullname" .root | quote }}}
{{- range $folder, $name := .secrets }}
- name: secret-{{ $folder }}
  secret: {secretName: {{ $name | quote }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "notifier.mounts" -}}
- {name: config, mountPath: /etc/notifier/config, readOnly: true}
{{- range $folder, $_ := .secrets }}
- {name: secret-{{ $folder }}, mountPath: /etc/notifier/secrets/{{ $folder }}, readOnly: true}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Egress to names and to the broker. */}}
{{- define "notifier.egress" -}}
- ports:  # names; the rules apply to the ports of the pods, and OpenShift's name servers listen on 5353
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
- ports:  # the broker
    {{- range (include "notifier.brokerPorts" . | fromJsonArray) }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.broker }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* "true" if the chart mounts the folder of the spool: it is set, and no value mounts it. */}}
{{- define "notifier.mountsSpool" -}}
{{- $folder := dig "spool" "folder" "" .Values.config -}}
{{- $mounted := list -}}
{{- range .Values.extraVolumeMounts -}}{{- $mounted = append $mounted .mountPath -}}{{- end -}}
{{- if and $folder (not (has $folder $mounted)) -}}true{{- end -}}
{{- end -}}

{{- define "notifier.spoolVolume" -}}
- name: spool
  {{- if .Values.spool.claim }}
  persistentVolumeClaim: {claimName: {{ .Values.spool.claim | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.spool.sizeLimit }}}
  {{- end }}
{{- end -}}
