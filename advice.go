package berth

import (
	"fmt"
	"math"
	"time"
)

const (
	adviceAfter  = 30 * time.Second // what ran for less says nothing of what it needs
	cpuHeadroom  = 1.2              // over the peak
	memHeadroom  = 1.25
	throttledToo = 0.1 // of the time
	nearLimit    = 0.9
)

// advice says what to ask for instead, where what was asked for doesn't fit
// what was used and enough was measured to say so.
func advice(m *TaskMetrics, a *Attempt, ran time.Duration) []string {
	var out []string
	killed := a.Outcome != nil && a.Outcome.Diagnosis != nil && a.Outcome.Diagnosis.Cause == CauseOOMKilled
	if killed && m.Memory.Limit != nil {
		return []string{fmt.Sprintf("It was killed because it wanted more memory than its limit of %s: try --memory %s.", FormatBytes(*m.Memory.Limit), bytesToAsk(2*float64(*m.Memory.Limit)))}
	}
	if ran < adviceAfter {
		return nil
	}
	if text := cpuAdvice(&m.CPU, ran); text != "" {
		out = append(out, text)
	}
	if text := memoryAdvice(&m.Memory); text != "" {
		out = append(out, text)
	}
	return out
}

func cpuAdvice(c *CPUUse, ran time.Duration) string {
	if c.Request == nil || c.Mean == nil {
		return ""
	}
	// How much it used at most is not known without samples: be generous then.
	asked, mean, peak, most := *c.Request, *c.Mean, 2**c.Mean, ""
	if c.Peak != nil {
		peak, most = *c.Peak, ", "+FormatCPU(*c.Peak)+" at most"
	}
	more := fmt.Sprintf("--cpu %s may make it faster, if the program can use it.", cpuToAsk(2*asked))
	switch {
	case c.ThrottledSeconds != nil && *c.ThrottledSeconds > throttledToo*ran.Seconds():
		return fmt.Sprintf("It was held back at its limit of %s CPU for %s: %s", FormatCPU(asked), roughly(time.Duration(*c.ThrottledSeconds*float64(time.Second))), more)
	case c.ThrottledSeconds == nil && mean > nearLimit*asked:
		return fmt.Sprintf("It asked for %s CPU and used all of it (%s on average): %s", FormatCPU(asked), FormatCPU(mean), more)
	}
	if enough := cpuToAsk(cpuHeadroom * peak); peak < asked/2 && *enough.cores() < asked {
		return fmt.Sprintf("It asked for %s CPU and used %s on average%s: --cpu %s would do.", FormatCPU(asked), FormatCPU(mean), most, enough)
	}
	return ""
}

func memoryAdvice(c *MemoryUse) string {
	if c.Request == nil || c.Peak == nil {
		return ""
	}
	// File cache that an agent's peak counts gives way before a program is
	// killed: how near that was is for the samples to say.
	asked, peak := *c.Request, *c.Peak
	if c.WorkingSet != nil {
		peak = *c.WorkingSet
		if float64(peak) > nearLimit*float64(asked) {
			return fmt.Sprintf("It came within %s of its memory limit of %s, beyond which it is killed: --memory %s is safer.", FormatBytes(max(0, asked-peak)), FormatBytes(asked), bytesToAsk(1.5*float64(asked)))
		}
	}
	if enough := bytesToAsk(memHeadroom * float64(peak)); peak < asked/2 && *enough.bytes() < asked {
		return fmt.Sprintf("It asked for %s of memory and used %s at most: --memory %s would do.", FormatBytes(asked), FormatBytes(peak), enough)
	}
	return ""
}

// cpuToAsk rounds up to what people write: tenths up to 1 CPU, then halves.
func cpuToAsk(cores float64) Quantity {
	step := 0.1
	if cores > 1 {
		step = 0.5
	}
	milli := int(math.Round(1000 * step * math.Max(1, math.Ceil(cores/step-1e-9))))
	if milli%1000 == 0 {
		return Quantity(fmt.Sprintf("%d", milli/1000))
	}
	return Quantity(fmt.Sprintf("%dm", milli))
}

// bytesToAsk rounds up to what people write: by 16Mi, from 256Mi on by 64Mi,
// from 2Gi on by 512Mi.
func bytesToAsk(bytes float64) Quantity {
	const mi = 1 << 20
	step := 16.0
	switch {
	case bytes > 2048*mi:
		step = 512
	case bytes > 256*mi:
		step = 64
	}
	n := int(step * math.Max(1, math.Ceil(bytes/mi/step-1e-9)))
	if n%1024 == 0 {
		return Quantity(fmt.Sprintf("%dGi", n/1024))
	}
	return Quantity(fmt.Sprintf("%dMi", n))
}

// FormatCPU writes a number of CPUs, or of CPU seconds, for people: 0.003, 0.25, 3.5, 12.
func FormatCPU(cores float64) string {
	switch {
	case cores < 0.01:
		return trim(fmt.Sprintf("%.3f", cores))
	case cores < 10:
		return trim(fmt.Sprintf("%.2f", cores))
	}
	return trim(fmt.Sprintf("%.1f", cores))
}

// FormatBytes writes an amount of memory for people: 800 B, 1.5 MiB, 12 GiB.
func FormatBytes(bytes int64) string {
	value, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if value < 10 && unit != "B" {
		return trim(fmt.Sprintf("%.1f", value)) + " " + unit
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}

// trim drops zeros that say nothing.
func trim(number string) string {
	for number[len(number)-1] == '0' {
		number = number[:len(number)-1]
	}
	if number[len(number)-1] == '.' {
		number = number[:len(number)-1]
	}
	return number
}
