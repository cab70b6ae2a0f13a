package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) taskMetricsCommand() *cobra.Command {
	var q berth.MetricsQuery
	var follow bool
	cmd := &cobra.Command{
		Use: "metrics ID", Short: "Show what a task used, against what it asked for", Args: exactly(1, "the id of a task"),
		Long: "Show what a task used of CPU and memory over time, against what it asked for, and what to ask for instead. Where it can be, it is sampled every " + berth.SampleInterval.String() + " while it runs; a task with steps, and a function, tell in any case what they used in all.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Attempt < 0 {
				return fmt.Errorf("--attempt can't be negative")
			}
			if follow && a.output != "table" {
				return fmt.Errorf("-f draws a chart: leave -o %s out, or -f", a.output)
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if follow {
					ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
					defer stop()
					return a.followMetrics(ctx, service, args[0], q)
				}
				metrics, err := service.TaskMetrics(ctx, args[0], q)
				if err != nil {
					return err
				}
				return a.print(metrics, func(w io.Writer) { fmt.Fprint(w, a.metricsPage(&metrics)) })
			})
		},
	}
	cmd.Flags().IntVar(&q.Attempt, "attempt", 0, "of this attempt (default: the last)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show it anew with each sample until the task has ended")
	a.outputFlag(cmd)
	return cmd
}

// followMetrics shows the page whenever there is something new, on a terminal
// in the place of the one before.
func (a *app) followMetrics(ctx context.Context, service berth.Service, id string, q berth.MetricsQuery) error {
	shown := ""
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		metrics, err := service.TaskMetrics(ctx, id, q)
		if ctx.Err() != nil {
			return exitError(berth.ExitCancelled)
		}
		if err != nil {
			return err
		}
		if page := a.metricsPage(&metrics); page != shown {
			if shown != "" && terminalWidth(a.stdout) != nil {
				fmt.Fprintf(a.stdout, "\x1b[%dA\x1b[J", strings.Count(shown, "\n"))
			}
			shown = page
			if _, err := io.WriteString(a.stdout, page); err != nil {
				return err
			}
		}
		if metrics.EndedAt != nil || metrics.State.Terminal() {
			return nil
		}
		select {
		case <-ctx.Done():
			return exitError(berth.ExitCancelled)
		case <-ticker.C:
		}
	}
}

// metricsPage is what a person reads: charts, figures, advice.
func (a *app) metricsPage(m *berth.TaskMetrics) string {
	width := 80
	if w := terminalWidth(a.stdout); w != nil {
		width = min(w(), 160)
	}
	return metricsPage(m, width)
}

func metricsPage(m *berth.TaskMetrics, width int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Task %s %s", m.TaskID, stands(m.State))
	if m.Attempt > 1 {
		fmt.Fprintf(&out, " (attempt %d)", m.Attempt)
	}
	fmt.Fprintln(&out, ".")
	if len(m.Samples) > 1 {
		fmt.Fprint(&out, "\n"+cpuChart(m, width).draw()+"\n"+memoryChart(m, width).draw())
	}
	if m.Source != nil {
		fmt.Fprint(&out, "\n"+cpuLine(&m.CPU)+memoryLine(&m.Memory))
		fmt.Fprintf(&out, "Measured by: %s\n", sourceName(*m.Source))
	}
	if m.Note != nil {
		fmt.Fprintln(&out, "\n"+wrap("Note: "+*m.Note+".", "", width))
	}
	if len(m.Advice) > 0 {
		fmt.Fprintln(&out, "\nAdvice:")
		for _, text := range m.Advice {
			fmt.Fprintln(&out, wrap(text, "  ", width))
		}
	}
	return out.String()
}

func sourceName(source berth.UsageSource) string {
	switch source {
	case berth.UsageFromAgent:
		return "the agent in its container"
	case berth.UsageFromCluster:
		return "the cluster's metrics-server (metrics.k8s.io)"
	case berth.UsageFromDocker:
		return "the Docker Engine"
	}
	return string(source)
}

const chartHeight = 6

func cpuChart(m *berth.TaskMetrics, width int) *chart {
	c := &chart{title: "CPU", from: *m.StartedAt, label: berth.FormatCPU, width: width, height: chartHeight}
	before := berth.Sample{At: *m.StartedAt}
	for _, s := range m.Samples {
		if passed := s.At.Sub(before.At).Seconds(); passed > 0 {
			c.points = append(c.points, point{s.At, (s.CPUSeconds - before.CPUSeconds) / passed})
		}
		before = s
	}
	c.to = before.At
	if m.CPU.Limit != nil {
		c.mark = *m.CPU.Limit
	}
	return c
}

func memoryChart(m *berth.TaskMetrics, width int) *chart {
	c := &chart{title: "Memory", from: *m.StartedAt, label: func(v float64) string { return berth.FormatBytes(int64(v)) }, width: width, height: chartHeight}
	for _, s := range m.Samples {
		c.points = append(c.points, point{s.At, float64(s.MemoryBytes)})
		c.to = s.At
	}
	if m.Memory.Limit != nil {
		c.mark = float64(*m.Memory.Limit)
	}
	return c
}

// cpuLine tells what was used of CPU, and what was asked for.
func cpuLine(c *berth.CPUUse) string {
	var parts []string
	part := func(format string, value *float64, show func(float64) string) {
		if value != nil {
			parts = append(parts, fmt.Sprintf(format, show(*value)))
		}
	}
	part("%s in all", c.Seconds, cpuSeconds)
	part("mean %s", c.Mean, berth.FormatCPU)
	part("peak %s", c.Peak, berth.FormatCPU)
	part("throttled %s", c.ThrottledSeconds, cpuSeconds)
	return "CPU:    " + strings.Join(parts, ", ") + "  (" + limits(c.Request, c.Limit, berth.FormatCPU) + ")\n"
}

func memoryLine(c *berth.MemoryUse) string {
	var parts []string
	part := func(format string, value *int64) {
		if value != nil {
			parts = append(parts, fmt.Sprintf(format, berth.FormatBytes(*value)))
		}
	}
	part("mean %s", c.Mean)
	part("peak %s", c.Peak)
	if c.WorkingSet != nil && c.Peak != nil && *c.WorkingSet != *c.Peak {
		part("%s of that not file cache", c.WorkingSet)
	}
	return "Memory: " + strings.Join(parts, ", ") + "  (" + limits(c.Request, c.Limit, berth.FormatBytes) + ")\n"
}

func cpuSeconds(s float64) string {
	return berth.FormatCPU(s) + " s"
}

// limits says what was asked for.
func limits[T comparable](request, limit *T, show func(T) string) string {
	switch {
	case request != nil && limit != nil && *request == *limit:
		return "request and limit " + show(*request)
	case request != nil && limit != nil:
		return "request " + show(*request) + ", limit " + show(*limit)
	case request != nil:
		return "request " + show(*request) + ", no limit"
	}
	return "no request and no limit"
}
