package rpc

import (
	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func toNetworkUse(n *berth.NetworkUse) *pb.NetworkUse {
	if n == nil {
		return nil
	}
	return &pb.NetworkUse{SentBytes: n.SentBytes, ReceivedBytes: n.ReceivedBytes, Connections: n.Connections}
}

func fromNetworkUse(n *pb.NetworkUse) *berth.NetworkUse {
	if n == nil {
		return nil
	}
	return &berth.NetworkUse{SentBytes: n.GetSentBytes(), ReceivedBytes: n.GetReceivedBytes(), Connections: n.GetConnections()}
}
