// Command bench measures Berth against a bare client-go loop, in one run
// against the same API server, and prints ratios. hack/bench.sh brings the
// clusters up.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const image = "docker.io/library/busybox:1.35"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: bench throughput|workflow|replay|latency|live|queue|fleet|functions|cluster|proxy [flags]")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "admin kubeconfig of the cluster")
	berth := flags.String("berth", "bin/berth", "the berth binary")
	tasks := flags.Int("tasks", 1000, "tasks of a throughput round, or workers of a cluster")
	rounds := flags.Int("rounds", 5, "rounds of each, in turn")
	runs := flags.Int("runs", 20, "runs of each for the latency, in turn")
	clusters := flags.Int("clusters", 1000, "simulated infrastructures of the fleet; each has --tasks tasks")
	waits := flags.Int("waits", 300, "pods that end while somebody waits for each")
	base := flags.String("base", "", "base image of the functions' package, as berth package build --base takes it")
	berthlet := flags.String("berthlet", "bin/berthlet", "the agent, of which the sidecar of a proxy is a part")
	size := flags.Int64("size", 4096, "MiB that are sent through a proxy each round")
	atOnce := flags.Int("at-once", 200, "functions at once")
	only := flags.String("only", "", "bare, reading or berth: measure the throughput of that side alone")
	profile := flags.String("profile", "", "file for a CPU profile of this process")
	_ = flags.Parse(os.Args[2:])
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	var err error
	switch os.Args[1] {
	case "throughput":
		err = throughput(context.Background(), *kubeconfig, *only, *tasks, *rounds)
	case "workflow":
		err = workflows(context.Background(), *kubeconfig, *tasks, *rounds)
	case "replay":
		err = replay(context.Background(), *kubeconfig, *berth, *tasks, *rounds)
	case "latency":
		err = latency(context.Background(), *kubeconfig, *berth, *runs)
	case "live":
		err = live(context.Background(), *kubeconfig, *berth, *tasks, *waits)
	case "queue":
		err = queue(context.Background(), *kubeconfig, *berth, *tasks)
	case "fleet":
		err = fleet(context.Background(), *berth, *clusters, *tasks)
	case "functions":
		err = functions(context.Background(), *kubeconfig, *berth, *base, *runs, *atOnce)
	case "cluster":
		err = computeCluster(context.Background(), *kubeconfig, *tasks, *rounds)
	case "proxy":
		err = redirected(*berthlet, *rounds, *size<<20)
	default:
		err = fmt.Errorf("unknown measurement %q", os.Args[1])
	}
	pprof.StopCPUProfile()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// connect returns a client as fast as client-go can be: protobuf, no limiter.
func connect(kubeconfig string) (*rest.Config, *kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

// ready waits until pods can be made in a namespace.
func ready(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	for {
		_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func percentile(values []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
