package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/certificate"
)

// etcdAddress is where etcd serves, inside the cluster's network namespace.
var etcdAddress = netip.MustParseAddrPort("127.0.0.1:2379")

type action struct {
	what string
	do   func(context.Context) error
}

// actions are the steps from nothing to a cluster, in order.
func (c *Cluster) actions(wanted Wanted, built programs) []action {
	k := built.kubernetes
	actions := []action{
		{"Network and certificates", func(context.Context) error { return c.prepare() }},
		{"API server", func(ctx context.Context) error {
			if err := c.startEtcd(k); err != nil {
				return err
			}
			if !wanted.ControlPlaneOnly {
				if err := c.startContainerd(built.containerd); err != nil {
					return err
				}
			}
			// An API server that finds no etcd tries again only after a second.
			if err := c.await(ctx, "etcd", time.Minute, func() (bool, error) { return c.namespace().Listening(etcdAddress), nil }); err != nil {
				return err
			}
			if err := c.startAPIServer(k); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.await(ctx, "kube-apiserver", time.Minute, func() (bool, error) { return client.Ready(ctx), nil })
		}},
		{"Controller manager and scheduler", func(ctx context.Context) error {
			return errors.Join(c.startControllerManager(k), c.startScheduler(k), c.grantKubelet(ctx))
		}},
	}
	if !wanted.ControlPlaneOnly {
		actions = append(actions,
			action{"Node ready", func(ctx context.Context) error { return c.node(ctx, wanted, built) }},
		)
	}
	if wanted.KwokNodes > 0 {
		actions = append(actions, action{fmt.Sprintf("%d simulated nodes ready", wanted.KwokNodes), func(ctx context.Context) error {
			if err := errors.Join(c.startPodLogs(), c.startKwok(ctx, built.kwok, wanted.KwokNodes)); err != nil {
				return err
			}
			return c.await(ctx, "kwok", time.Minute, func() (bool, error) {
				ready, err := c.nodesReady(ctx)
				return ready >= wanted.KwokNodes, err
			})
		}})
	}
	if wanted.DNS {
		actions = append(actions, action{"DNS", func(ctx context.Context) error {
			if err := c.startDNS(built.coredns); err != nil {
				return err
			}
			return c.await(ctx, "coredns", time.Minute, func() (bool, error) {
				return c.namespace().Listening(netip.AddrPortFrom(c.plan.DNS(), 53)), nil
			})
		}})
	}
	if wanted.Metrics {
		actions = append(actions, action{"Metrics", func(ctx context.Context) error {
			if err := errors.Join(c.startMetrics(built.metrics), c.registerMetrics(ctx)); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.await(ctx, "metrics-server", time.Minute, func() (bool, error) {
				return client.Get(ctx, "/apis/metrics.k8s.io/v1beta1/nodes", nil) == nil, nil
			})
		}})
	}
	return append(actions, action{"Namespace default", func(ctx context.Context) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		return c.await(ctx, "kube-controller-manager", time.Minute, func() (bool, error) {
			return client.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil) == nil, nil
		})
	}})
}

// prepare makes all that components find when they start.
func (c *Cluster) prepare() error {
	if err := c.allocate(); err != nil {
		return err
	}
	if err := c.namespace().Make(); err != nil {
		return err
	}
	if err := c.plan.Join(c.namespace(), c.link()); err != nil {
		return err
	}
	if err := c.group().Make(); err != nil {
		return err
	}
	raiseWatchLimits()
	if err := c.certificates(); err != nil {
		return err
	}
	return c.write("host-ip", c.plan.Host().String()+"\n")
}

func (c *Cluster) certificates() error {
	pki := c.pki()
	ca, err := pki.NewAuthority("ca")
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority("front-proxy-ca")
	if err != nil {
		return err
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	server := certificate.Subject{CommonName: "kube-apiserver", Addresses: []netip.Addr{c.plan.Node(), c.plan.APIService(), local},
		Names: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}}
	_, keyErr := pki.Key("sa")
	err = errors.Join(keyErr,
		ca.Issue("apiserver", server),
		ca.Issue("admin", certificate.Subject{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}),
		ca.Issue("apiserver-kubelet-client", certificate.Subject{CommonName: "kube-apiserver-kubelet-client"}),
		ca.Issue("controller-manager", certificate.Subject{CommonName: "system:kube-controller-manager"}),
		ca.Issue("scheduler", certificate.Subject{CommonName: "system:kube-scheduler"}),
		ca.Issue("proxy", certificate.Subject{CommonName: "system:kube-proxy"}),
		ca.Issue("kubelet", certificate.Subject{CommonName: "system:node:" + c.Name, Organization: []string{"system:nodes"}, Addresses: []netip.Addr{c.plan.Node(), local}, Names: []string{c.Name}}),
		front.Issue("front-proxy-client", certificate.Subject{CommonName: "front-proxy-client"}))
	for _, holder := range []string{"admin", "controller-manager", "scheduler", "proxy", "kubelet"} {
		err = errors.Join(err, ca.Kubeconfig(pki.Path(holder+".kubeconfig"), c.server(), "localkube-"+c.Name, holder))
	}
	return errors.Join(err, ca.Kubeconfig(c.Kubeconfig(), c.server(), "localkube-"+c.Name, "admin"))
}
