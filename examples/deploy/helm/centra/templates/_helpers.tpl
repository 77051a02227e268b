{{- define "centra.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "centra.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "centra.labels" -}}
{{ include "centra.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "centra.metadata" -}}
name: {{ include "centra.name" . }}
labels:
  {{- include "centra.labels" . | nindent 2 }}
{{- end -}}

{{- define "centra.args" -}}
- serve
{{- if eq (len .Values.channels) 1 }}
{{- with first .Values.channels }}
- {{ printf "%s#%s" .store .channel | quote }}
{{- end }}
{{- else }}
{{- range .Values.channels }}
- {{ printf "--channel=%s=%s#%s" (required "of several channels each has a name" .name) .store .channel | quote }}
{{- end }}
{{- end }}
- --host=0.0.0.0
- --port=8080
- --grpc-port=8081
{{- if .Values.tokens.existingSecret }}
- --tokens=/etc/centra/tokens/tokens.toml
{{- end }}
{{- range .Values.signing.keys }}
- {{ printf "--key=/etc/centra/keys/%s" . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
