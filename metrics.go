package berth

import (
	"math"
	"time"
)

// UsageSource says where the figures of what an attempt used are from.
type UsageSource string

const (
	UsageFromAgent   UsageSource = "agent"          // the agent in the container read its own cgroup
	UsageFromCluster UsageSource = "metrics.k8s.io" // the cluster's metrics-server
	UsageFromDocker  UsageSource = "docker"         // the Docker Engine's stats
)

const (
	// SampleInterval is how often what runs is measured: metrics-server has
	// nothing new more often than that.
	SampleInterval = 15 * time.Second

	// MaxSamples bounds the samples that are kept of an attempt. Beyond it
	// every second one is dropped, and every second one that comes.
	MaxSamples = 1000

	// maxUnseen bounds the time without a sample for which an attempt is taken to
	// have used as much CPU as it did beside it. What goes beyond was not seen.
	// Some clusters measure once a minute, and have a first sample after two.
	maxUnseen = 3 * time.Minute
)

// Usage is what an attempt of a task used; nil values were not measured.
type Usage struct {
	CPUSeconds      *float64     `json:"cpuSeconds"`
	MemoryPeakBytes *int64       `json:"memoryPeakBytes"`
	Source          *UsageSource `json:"source"`

	// Network is what went through the infrastructure's proxy; nil where there
	// is none, and before the attempt has ended.
	Network *NetworkUse `json:"network"`
}

// NetworkUse is what an attempt sent and received through a proxy. What went to
// resolvers, and around the proxy, is not counted.
type NetworkUse struct {
	SentBytes     int64 `json:"sentBytes"`
	ReceivedBytes int64 `json:"receivedBytes"`
	Connections   int64 `json:"connections"`
}

// AttemptUsage is what is kept of an attempt that has ended.
type AttemptUsage struct {
	Usage
	ThrottledSeconds *float64 `json:"throttledSeconds,omitempty"` // held back at its CPU limit
	Unmeasured       string   `json:"unmeasured,omitempty"`       // why there are no figures
}

// Reading is what a source told of an attempt's main container at a time.
type Reading struct {
	Source UsageSource
	At     time.Time

	// CPUSeconds is what was used since the container began. Where the source
	// tells a rate instead it is nil, and Cores is the mean over Window before At;
	// zero: over all the time since the reading before.
	CPUSeconds *float64
	Cores      float64
	Window     time.Duration

	// MemoryBytes is the working set: what is used but for file cache that
	// could be dropped at any time.
	MemoryBytes      int64
	ThrottledSeconds *float64 // since the container began
}

// Sample is what an attempt used by a time, from whichever source.
type Sample struct {
	Seq         int       `json:"-"` // the number of the reading that it was, from 0 on
	At          time.Time `json:"at"`
	CPUSeconds  float64   `json:"cpuSeconds"`  // since the attempt began
	MemoryBytes int64     `json:"memoryBytes"` // at that time
}

// Meter sums up the readings of an attempt, so that peaks and totals are exact
// however few of the samples are kept. It is stored as JSON.
type Meter struct {
	StartedAt        time.Time   `json:"startedAt"` // where CPU seconds count from
	Source           UsageSource `json:"source"`
	Readings         int         `json:"readings"`
	Stride           int         `json:"stride"` // one reading in so many is kept
	Last             Sample      `json:"last"`
	Cores            float64     `json:"cores"` // at the last reading
	CPUPeak          float64     `json:"cpuPeak"`
	MemoryPeakBytes  int64       `json:"memoryPeakBytes"`
	MemorySum        float64     `json:"memorySum"` // of all readings: the mean is this by their number
	ThrottledSeconds *float64    `json:"throttledSeconds,omitempty"`
	Unseen           float64     `json:"unseen,omitempty"` // seconds whose CPU nobody knows
}

// Metered is what is new of an attempt's meter and is to be stored.
type Metered struct {
	TaskID  string
	Attempt int
	Meter   Meter
	Samples []Sample
	Thinned bool // the meter keeps fewer samples than before
}

// NewMeter measures an attempt whose main container started at a time.
func NewMeter(startedAt time.Time) Meter { return Meter{StartedAt: startedAt.UTC(), Stride: 1} }

// Add takes in a reading. One that is not newer than the last, or not a second
// newer, is no sample. keep says that the sample is to be kept.
func (m *Meter) Add(r Reading) (s Sample, keep bool) {
	before := m.Last
	if m.Readings == 0 {
		before.At = m.StartedAt
	}
	passed := r.At.Sub(before.At)
	if m.Readings > 0 && passed < time.Second || passed <= 0 || r.MemoryBytes < 0 || !countable(r.Cores) {
		return Sample{}, false
	}
	s = Sample{Seq: m.Readings, At: r.At.UTC(), MemoryBytes: r.MemoryBytes}
	if r.CPUSeconds != nil {
		if !countable(*r.CPUSeconds) {
			return Sample{}, false
		}
		// A figure of another source before may have been a little higher.
		s.CPUSeconds = max(before.CPUSeconds, *r.CPUSeconds)
		m.Cores = (s.CPUSeconds - before.CPUSeconds) / passed.Seconds()
	} else {
		window := passed
		if r.Window > 0 {
			window = min(passed, r.Window)
		}
		// Between two windows it used as much as in the two on the average.
		between, earlier := passed-window, m.Cores
		if m.Readings == 0 {
			earlier = r.Cores
		}
		if over := passed - maxUnseen; over > 0 {
			window, between = min(window, maxUnseen), max(0, min(between, maxUnseen-window))
			m.Unseen += over.Seconds()
		}
		m.Cores = r.Cores
		s.CPUSeconds = before.CPUSeconds + r.Cores*window.Seconds() + (earlier+r.Cores)/2*between.Seconds()
	}
	s.CPUSeconds = micro(s.CPUSeconds)
	m.Source, m.Last = r.Source, s
	m.CPUPeak = max(m.CPUPeak, m.Cores)
	m.MemoryPeakBytes = max(m.MemoryPeakBytes, s.MemoryBytes)
	m.MemorySum += float64(s.MemoryBytes)
	if r.ThrottledSeconds != nil {
		m.ThrottledSeconds = r.ThrottledSeconds
	}
	m.Readings++
	if keep = s.Seq%m.Stride == 0; keep && s.Seq/m.Stride >= MaxSamples {
		m.Stride *= 2
		keep = s.Seq%m.Stride == 0
	}
	return s, keep
}

// Kept reports whether a sample is still one of those that are kept.
func (m *Meter) Kept(s Sample) bool { return s.Seq%m.Stride == 0 }

// Total is what the attempt used by a time. What it used after the last
// reading, until it ended, is taken to be as much as it used at it.
func (m *Meter) Total(by time.Time) AttemptUsage {
	if m.Readings == 0 {
		return AttemptUsage{}
	}
	tail := min(max(0, by.Sub(m.Last.At)), 2*SampleInterval)
	cpu := micro(m.Last.CPUSeconds + m.Cores*tail.Seconds())
	peak, source := m.MemoryPeakBytes, m.Source
	return AttemptUsage{Usage: Usage{CPUSeconds: &cpu, MemoryPeakBytes: &peak, Source: &source}, ThrottledSeconds: m.ThrottledSeconds}
}

// countable reports whether a figure of a source can be one.
func countable(f float64) bool { return f >= 0 && f < 1e12 }

// micro rounds to millionths: what is beyond is noise.
func micro(f float64) float64 { return math.Round(f*1e6) / 1e6 }
