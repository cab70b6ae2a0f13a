package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// clusterFlags are the flags of berth cluster create.
type clusterFlags struct {
	spec                                   berth.ClusterSpec
	on, workers, user, pull                string
	cpu, memory, storage, headCPU, headMem string
	gpu, waitFor                           int
	env, labels, groups                    []string
	waitTimeout                            time.Duration
	detach                                 bool
}

func (a *app) clusterCreateCommand() *cobra.Command {
	var f clusterFlags
	cmd := &cobra.Command{
		Use: "create ENGINE --software IMAGE [flags]", Short: "Make a cluster, or use one of that name that runs",
		Long: `Make a compute cluster: a head, and workers in one group or several. The engine is
dask; the image has to have it (see docs/dask.md for recipes).

With --name one of yours of that name that has not ended is used as it is. A
cluster ends by itself after --idle-timeout without anything to compute. Leaving
this command doesn't end it.

Several groups of workers are written as --group NAME=COUNT or NAME=MIN-MAX, with
what they differ in: --group big=2,cpu=4,memory=16Gi,gpu=1,image=IMAGE,label.KEY=V,env.KEY=V`,
		Example: `  berth cluster create dask --software registry.example/dask:1 --workers 4
  berth cluster create dask --name analysis --software registry.example/dask:1 --workers 1-20 --cpu 2 --memory 8Gi
  berth cluster create dask --software registry.example/dask:1 --group small=4 --group big=1,memory=64Gi`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("berth cluster create takes an engine, %s, such as berth cluster create dask --software IMAGE --workers 4", strings.Join(berth.Engines, " or "))
			}
			return nil
		},
		ValidArgs: berth.Engines,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.spec.Engine = args[0]
			if err := f.read(); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error { return a.createCluster(ctx, service, &f) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.spec.Name, "name", "", "its name; one of that name that has not ended is used as it is (default: the engine and some letters)")
	flags.StringVar(&f.on, "on", "", "infrastructure to run on (default: default: of infra.yml, or else the one that has room)")
	flags.StringVar(&f.spec.Image, "software", os.Getenv("BERTH_DASK_IMAGE"), "image that has the engine, and what the computation needs (BERTH_DASK_IMAGE)")
	flags.StringVar(&f.spec.Image, "image", os.Getenv("BERTH_DASK_IMAGE"), "the same as --software")
	_ = flags.MarkHidden("image")
	flags.StringVar(&f.workers, "workers", "", "how many workers: 4, or 1-10 for as many as the engine wants (default 1)")
	flags.StringArrayVar(&f.groups, "group", nil, "a group of workers: NAME=COUNT or NAME=MIN-MAX[,cpu=..,memory=..,gpu=..,image=..,label.K=V,env.K=V]")
	flags.StringVar(&f.cpu, "cpu", "", "CPUs of a worker, which is also its number of threads: 2, 0.5")
	flags.StringVar(&f.memory, "memory", "", "memory of a worker: 2Gi")
	flags.StringVar(&f.storage, "ephemeral-storage", "", "local disk of a worker, where it puts what does not fit into memory: 10Gi")
	flags.IntVar(&f.gpu, "gpu", 0, "GPUs of a worker")
	flags.StringVar(&f.headCPU, "head-cpu", "", "CPUs of the head")
	flags.StringVar(&f.headMem, "head-memory", "", "memory of the head")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable K=V of all pods, or K to take it from here")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "label K=V of all pods")
	flags.StringVarP(&f.user, "user", "u", "", "UID or UID:GID to run as")
	flags.StringVar(&f.pull, "pull", "", "when to pull the image: missing, always, never (default missing; always for :latest)")
	flags.DurationVar(&f.spec.IdleTimeout, "idle-timeout", berth.DefaultIdleTimeout, "end it after so long without anything to compute; 0: never")
	flags.DurationVar(&f.spec.NoClientTimeout, "no-client-timeout", 0, "end it after so long without a client that is connected; 0: never")
	flags.DurationVar(&f.spec.MaxLifetime, "max-lifetime", 0, "end it after so long whatever it computes; 0: never")
	flags.DurationVar(&f.spec.DrainTimeout, "drain-timeout", berth.DefaultDrainTimeout, "how long a worker that is too many may finish what it computes")
	flags.IntVar(&f.waitFor, "wait-for", 0, "return when so many workers are ready (default: when the head answers)")
	flags.DurationVar(&f.waitTimeout, "wait-timeout", 0, "wait no longer than that (exit code 124); the cluster goes on (default: wait)")
	flags.BoolVarP(&f.detach, "detach", "d", false, "return once it is stored")
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
	_ = cmd.RegisterFlagCompletionFunc("pull", cobra.FixedCompletions([]string{"missing", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	a.outputFlag(cmd)
	return cmd
}

// read puts the spec together.
func (f *clusterFlags) read() error {
	s := &f.spec
	if s.Image == "" {
		return fmt.Errorf("no image was given: --software IMAGE (or BERTH_DASK_IMAGE) names one that has %s; docs/dask.md has recipes", s.Engine)
	}
	name, where, err := berth.ParseOn(f.on)
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return fmt.Errorf("--on %s: name an infrastructure", f.on)
	}
	s.Infrastructure, s.User, s.Pull = name, f.user, berth.PullPolicy(f.pull)
	if s.Labels, err = readLabels(f.labels); err != nil {
		return err
	}
	for _, pair := range f.env {
		if s.Env, err = readEnv(s.Env, pair); err != nil {
			return err
		}
	}
	s.Head = berth.ClusterGroup{CPU: berth.Quantity(f.headCPU), Memory: berth.Quantity(f.headMem)}
	like := berth.ClusterGroup{CPU: berth.Quantity(f.cpu), Memory: berth.Quantity(f.memory), EphemeralStorage: berth.Quantity(f.storage), GPU: f.gpu}
	s.Workers = nil
	if len(f.groups) == 0 || f.workers != "" {
		g := like
		if f.workers == "" {
			f.workers = "1"
		}
		if g.Count, g.Min, g.Max, err = readSize(f.workers); err != nil {
			return fmt.Errorf("--workers %w", err)
		}
		g.Name = berth.WorkerGroup
		s.Workers = append(s.Workers, g)
	}
	for _, text := range f.groups {
		g, err := readGroup(text, like)
		if err != nil {
			return err
		}
		s.Workers = append(s.Workers, g)
	}
	if err := s.Validate(); err != nil {
		return err
	}
	most := 0
	for i := range s.Workers {
		most += s.Workers[i].Most()
	}
	if f.waitFor < 0 || f.waitFor > most {
		return fmt.Errorf("--wait-for %d: the cluster has at most %s", f.waitFor, plural(most, "worker"))
	}
	return nil
}

func readEnv(vars []berth.EnvVar, pair string) ([]berth.EnvVar, error) {
	name, value, found := strings.Cut(pair, "=")
	if !found {
		if value, found = os.LookupEnv(name); !found {
			return nil, fmt.Errorf("--env %s: there is no such variable here; write %s=VALUE", name, name)
		}
	}
	return setEnv(vars, name, value), nil
}

// readSize reads 4, or 1-10.
func readSize(text string) (count, least, most int, err error) {
	number := func(text string) int {
		n, wrong := strconv.Atoi(strings.TrimSpace(text))
		if wrong != nil {
			err = fmt.Errorf("%q: write a number of workers such as 4, or from how many to how many such as 1-10", text)
		}
		return n
	}
	digits, below := strings.CutPrefix(text, "-") // of a number below 0, which is told elsewhere
	from, to, ranged := strings.Cut(digits, "-")
	if !ranged {
		count = number(text)
		return count, 0, 0, err
	}
	if below {
		from = "-" + from
	}
	least, most = number(from), number(to)
	if err == nil && most == 0 {
		err = fmt.Errorf("%q: at most 0 workers: write 0", text)
	}
	return 0, least, most, err
}

// readGroup reads NAME=SIZE[,KEY=VALUE...].
func readGroup(text string, like berth.ClusterGroup) (berth.ClusterGroup, error) {
	g := like
	wrong := func(what string) (berth.ClusterGroup, error) {
		return g, fmt.Errorf("--group %s: %s: write NAME=COUNT or NAME=MIN-MAX, and behind commas cpu=, memory=, gpu=, ephemeral-storage=, image=, label.KEY= or env.KEY=", text, what)
	}
	parts := strings.Split(text, ",")
	name, size, found := strings.Cut(parts[0], "=")
	if !found {
		return wrong("how many workers it has is missing")
	}
	var err error
	g.Name = name
	if g.Count, g.Min, g.Max, err = readSize(size); err != nil {
		return g, fmt.Errorf("--group %s: %w", text, err)
	}
	for _, part := range parts[1:] {
		key, value, found := strings.Cut(part, "=")
		if !found || value == "" {
			return wrong(fmt.Sprintf("%q has no value", part))
		}
		label, isLabel := strings.CutPrefix(key, "label.")
		variable, isEnv := strings.CutPrefix(key, "env.")
		switch {
		case isLabel:
			if g.Labels == nil {
				g.Labels = map[string]string{}
			}
			g.Labels[label] = value
		case isEnv:
			g.Env = setEnv(g.Env, variable, value)
		case key == "cpu":
			g.CPU = berth.Quantity(value)
		case key == "memory":
			g.Memory = berth.Quantity(value)
		case key == "ephemeral-storage":
			g.EphemeralStorage = berth.Quantity(value)
		case key == "image", key == "software":
			g.Image = value
		case key == "gpu":
			if g.GPU, err = strconv.Atoi(value); err != nil {
				return wrong(fmt.Sprintf("gpu %q is no number", value))
			}
		default:
			return wrong(fmt.Sprintf("%q is not known", key))
		}
	}
	return g, nil
}

// createCluster makes a cluster and waits for what was asked for.
func (a *app) createCluster(ctx context.Context, service berth.Service, f *clusterFlags) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	asked := time.Now()
	cluster, err := service.CreateCluster(ctx, berth.ClusterSubmission{Spec: f.spec, Reuse: f.spec.Name != ""})
	if err != nil {
		if ctx.Err() != nil {
			return exitError(berth.ExitCancelled)
		}
		return a.refused(err)
	}
	if cluster.CreatedAt.Before(asked.Add(-time.Second)) {
		fmt.Fprintf(a.stderr, "berth: cluster %s is there since %s, and is used as it is\n", cluster.Name, cluster.CreatedAt.Local().Format(time.DateTime))
		for i := range f.spec.Workers {
			a.differs(&cluster, &f.spec.Workers[i])
		}
	}
	if f.detach {
		return a.clusterMade(&cluster)
	}
	enough := func(c *berth.Cluster) bool {
		ready, _ := workersOf(c)
		return c.State == berth.ClusterRunning && ready >= f.waitFor
	}
	cluster, err = a.awaitCluster(ctx, service, cluster, enough, f.waitTimeout)
	if err != nil {
		return err
	}
	return a.clusterMade(&cluster)
}

// differs tells that a cluster that is used has another number of workers.
func (a *app) differs(c *berth.Cluster, wanted *berth.ClusterGroup) {
	for i := range c.Spec.Workers {
		g := &c.Spec.Workers[i]
		if g.Name == wanted.Name && (g.Count != wanted.Count || g.Min != wanted.Min || g.Max != wanted.Max) {
			fmt.Fprintf(a.stderr, "berth: its group %s has %s, and is left so: berth cluster scale changes that\n", g.Name, plural(g.Least(), "worker"))
		}
	}
}

// clusterMade tells of a cluster that was made.
func (a *app) clusterMade(c *berth.Cluster) error {
	if a.output != "table" {
		return a.print(c, nil)
	}
	fmt.Fprintln(a.stdout, c.Name)
	fmt.Fprintln(a.stderr, "berth: "+clusterStanding(c))
	if d := clusterDiagnosis(c); d != nil && d.Remedy.Text != "" {
		fmt.Fprintln(a.stderr, wrap("What to do ("+string(d.Remedy.By)+"): "+d.Remedy.Text, "  ", textWidth(a.stderr)))
	}
	fmt.Fprintf(a.stderr, "berth: berth cluster connect %s opens a tunnel to it, and tells what to write in Python\n", c.Name)
	if a.serverAddress() == "" {
		fmt.Fprintln(a.stderr, "berth: lost workers are replaced, and limits are kept to the second, while some berth command or server runs; the head keeps its idle limit by itself")
	}
	return nil
}

// awaitCluster waits until a cluster is as it is to be, and shows what it waits for.
func (a *app) awaitCluster(ctx context.Context, service berth.Service, cluster berth.Cluster, enough func(*berth.Cluster) bool, limit time.Duration) (berth.Cluster, error) {
	watch := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		watch, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	line := a.newClusterLine()
	defer line.close()
	for now, err := range service.WatchCluster(watch, cluster.ID) {
		if err != nil {
			line.close()
			switch {
			case ctx.Err() != nil:
				fmt.Fprintf(a.stderr, "berth: cluster %s goes on; berth cluster delete %[1]s ends it\n", cluster.Name)
				return cluster, exitError(berth.ExitCancelled)
			case watch.Err() != nil:
				fmt.Fprintf(a.stderr, "berth: after %s: %s\n", limit, clusterStanding(&cluster))
				return cluster, exitError(berth.ExitTimedOut)
			}
			return cluster, err
		}
		cluster = now
		if cluster.State == berth.ClusterStopping || cluster.State.Terminal() {
			if cluster.State.Terminal() {
				line.close()
				return cluster, a.clusterEnded(&cluster)
			}
		} else if enough(&cluster) {
			return cluster, nil
		}
		line.show(&cluster)
	}
	return cluster, nil
}

// clusterEnded tells how a cluster ended that somebody waited for.
func (a *app) clusterEnded(c *berth.Cluster) error {
	text := "berth: cluster " + c.Name + " " + string(c.State)
	if c.Reason != nil {
		text += ": " + oneLine(*c.Reason)
	}
	fmt.Fprintln(a.stderr, text)
	if c.Diagnosis != nil {
		fmt.Fprint(a.stderr, "  "+string(c.Diagnosis.Cause)+"\n"+advice(c.Diagnosis, textWidth(a.stderr)))
	}
	if c.Head.Task != nil && c.State == berth.ClusterFailed {
		fmt.Fprintf(a.stderr, "  berth cluster logs %s shows what its head wrote\n", c.ID)
	}
	if a.output != "table" {
		if err := a.print(c, nil); err != nil {
			return err
		}
	}
	return exitError(berth.ExitNone)
}
