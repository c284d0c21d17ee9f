//go:build never

// schemas.py generates the schemas of PodMonitor and ServiceMonitor from this module. The module with the operator's own CRDs is not available
// from every proxy.
package charts

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
