//go:build never

// What the schemas of PodMonitor and ServiceMonitor are made from: the module with the operator's own CRDs is not to be had everywhere.
package charts

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
