package server

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-run/berth"
)

// Figures are what a control plane knows of its tasks at one moment.
type Figures struct {
	Tasks           map[berth.TaskState]int
	Infrastructures []InfrastructureFigures
	LogBytes        int64           // that were read from clusters since the process began
	Storage         *StorageFigures // nil where logs stay where they are written

	// Connections of clients to heads of clusters since the process began, by their
	// way: one that the head opened to callback_to, or through the API server.
	OfferedConnections, ForwardedConnections int64
}

// StorageFigures are those of logs on their way to where all servers read them.
type StorageFigures struct {
	UnsentLogs int           // with lines that this machine alone has
	UnsentFor  time.Duration // the oldest of these
	Failures   int64         // to send, since the process began
}

// InfrastructureFigures are those of one infrastructure.
type InfrastructureFigures struct {
	Name         string
	State        berth.InfrastructureState
	Live, Queued int
}

// Metrics are what is told to Prometheus. Label values are all from small
// sets: methods, codes, states, reasons, and the names of infra.yml.
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	callbacks *prometheus.CounterVec
}

// infrastructureStates are all that an infrastructure can be in.
var infrastructureStates = []berth.InfrastructureState{
	berth.InfraUnknown, berth.InfraReady, berth.InfraUnreachable, berth.InfraUnauthorized, berth.InfraForbidden, berth.InfraReplaced, berth.InfraRemoved,
}

// NewMetrics returns metrics that ask for figures when they are asked.
func NewMetrics(version string, figures func(context.Context) (Figures, error)) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_requests_total", Help: "Calls of the API, by method and code."}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "berth_request_duration_seconds", Help: "How long calls took, by method and code; streams as long as they were open.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 60, 600},
		}, []string{"method", "code"}),
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_callbacks_total", Help: "Reports of agents, by how they were answered."}, []string{"outcome"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "berth_build_info", Help: "Always 1; the labels tell the version.", ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.seconds, m.callbacks, build, &figureCollector{figures: figures},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves them.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, ErrorHandling: promhttp.ContinueOnError})
}

// Request counts a call.
func (m *Metrics) Request(method, code string, took time.Duration) {
	m.requests.WithLabelValues(method, code).Inc()
	m.seconds.WithLabelValues(method, code).Observe(took.Seconds())
}

// Callback counts a report of an agent; outcomes are from a small set.
func (m *Metrics) Callback(outcome string) { m.callbacks.WithLabelValues(outcome).Inc() }

// figureCollector turns Figures into metrics when they are asked for.
type figureCollector struct {
	figures func(context.Context) (Figures, error)
}

var (
	tasksDesc  = prometheus.NewDesc("berth_tasks", "Tasks in the store, by state.", []string{"state"}, nil)
	liveDesc   = prometheus.NewDesc("berth_infrastructure_live_tasks", "Tasks that have not ended, by infrastructure.", []string{"infrastructure"}, nil)
	queueDesc  = prometheus.NewDesc("berth_infrastructure_queued_tasks", "Tasks that wait to be admitted, by infrastructure.", []string{"infrastructure"}, nil)
	healthDesc = prometheus.NewDesc("berth_infrastructure_state", "1 for the state that an infrastructure is in, 0 for the others.", []string{"infrastructure", "state"}, nil)
	unsentDesc = prometheus.NewDesc("berth_storage_unsent_logs", "Logs with lines that are not in shared storage yet.", nil, nil)
	ageDesc    = prometheus.NewDesc("berth_storage_unsent_seconds", "How long the oldest line that is not in shared storage has been waiting.", nil, nil)
	failedDesc = prometheus.NewDesc("berth_storage_failures_total", "Failures to send logs to shared storage; each is tried again.", nil, nil)
	wayDesc    = prometheus.NewDesc("berth_cluster_connections_total", "Connections of clients to heads of clusters, by the way that they take.", []string{"way"}, nil)
	logDesc    = prometheus.NewDesc("berth_log_bytes_total", "Output of tasks that was read from clusters.", nil, nil)
)

func (c *figureCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{tasksDesc, liveDesc, queueDesc, healthDesc, unsentDesc, ageDesc, failedDesc, wayDesc, logDesc} {
		out <- desc
	}
}

func (c *figureCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	f, err := c.figures(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(tasksDesc, err)
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, state := range berth.TaskStates {
		gauge(tasksDesc, float64(f.Tasks[state]), string(state))
	}
	for _, i := range f.Infrastructures {
		gauge(liveDesc, float64(i.Live), i.Name)
		gauge(queueDesc, float64(i.Queued), i.Name)
		for _, state := range infrastructureStates {
			value := 0.0
			if state == i.State {
				value = 1
			}
			gauge(healthDesc, value, i.Name, string(state))
		}
	}
	if s := f.Storage; s != nil {
		gauge(unsentDesc, float64(s.UnsentLogs))
		gauge(ageDesc, s.UnsentFor.Seconds())
		out <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(s.Failures))
	}
	out <- prometheus.MustNewConstMetric(wayDesc, prometheus.CounterValue, float64(f.OfferedConnections), "callback")
	out <- prometheus.MustNewConstMetric(wayDesc, prometheus.CounterValue, float64(f.ForwardedConnections), "portforward")
	out <- prometheus.MustNewConstMetric(logDesc, prometheus.CounterValue, float64(f.LogBytes))
}
