package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// announceEvery is how often a machine that waits with a token is told where
// the cluster is.
const announceEvery = 5 * time.Second

// announceAddress reads what token create --announce takes: an address, with a
// port unless it is the usual one.
func announceAddress(text string) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return at, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: --announce %s: not an IP address, or one with a port; for example 10.0.0.4", belfry.ErrUsage, text)
	}
	return netip.AddrPortFrom(addr, defaultHeartbeatPort), nil
}

const defaultHeartbeatPort = 7431

// runAnnounces tells those for whom tokens were made, while this node leads.
func (a *Agent) runAnnounces(ctx context.Context) error {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.announce:
		}
		if table := a.members.Table(); a.leads() {
			a.announceTokens(ctx, table)
		}
	}
}

func (a *Agent) announceTokens(ctx context.Context, table *Table) {
	now := a.clusterTime()
	var datagram []byte
	for _, t := range table.Tokens {
		if !t.Announce.IsValid() || t.Wrong > 0 || !now.Before(t.Expires) {
			continue
		}
		var err error
		if datagram == nil {
			if datagram, err = a.announcement(table); err != nil {
				a.log.Error("no announce", "err", err)
				return
			}
		}
		if err := transport.SendDatagram(ctx, a.id.node.Streams.Addr(), t.Announce, datagram); err != nil {
			a.log.Debug("announce not sent", "to", t.Announce, "err", err)
		}
	}
}

// announcement says where this node lets others in.
func (a *Agent) announcement(table *Table) ([]byte, error) {
	keys := a.keys.now()
	issuer := keys.Issuer()
	if issuer == nil {
		return nil, fmt.Errorf("%w: the certificate is under an authority that counts no more", belfry.ErrStale)
	}
	notice, err := a.newestNotice(table)
	if err != nil {
		return nil, err
	}
	return wire.AppendAnnounce(nil, table.Cluster, wire.Announce{
		Notice: notice, From: a.id.node.ID, Port: a.id.node.Streams.Port(),
		Certificate: keys.Certificate.Leaf.Raw, Authority: issuer.Raw,
	}, keys.Certificate.PrivateKey.(ed25519.PrivateKey))
}

// newestNotice names the generation in force. Without a repository it has none,
// and the epoch is that of the datagram keys.
func (a *Agent) newestNotice(t *Table) (n [wire.AnnouncedNotice]byte, err error) {
	notice := repository.Notice{Kind: repository.NoticeConfiguration, Cluster: t.Cluster, Epoch: uint64(t.Epoch), Generation: t.Generation}
	if a.storage != nil {
		held := a.storage.held()
		notice.Repository, notice.Epoch, notice.Generation, notice.Digest = held.Repository, held.Epoch, held.Generation, held.Digest
	} else {
		document, err := t.encode()
		if err != nil {
			return n, err
		}
		notice.Digest = sha256.Sum256(document)
	}
	copy(n[:], notice.Append(nil))
	return n, nil
}

// awaitAnnounce returns where a node of the token's cluster says that it lets
// others in. It believes only one that proves itself as it will have to again
// when it is asked.
func awaitAnnounce(ctx context.Context, token security.Token, p Place) (address string, err error) {
	var addrs []netip.AddrPort
	for _, a := range p.Addresses {
		addrs = append(addrs, netip.AddrPortFrom(a.Addr(), p.HeartbeatPort))
	}
	err = transport.AwaitDatagram(ctx, addrs, func(from netip.Addr, datagram []byte) bool {
		at, ok := judgeAnnounce(token, datagram)
		address = netip.AddrPortFrom(from, at).String()
		return ok
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return "", fmt.Errorf("%w: nobody said at %s where the cluster is; name an ADDRESS, or make the token with --announce", err, addrs[0])
	}
	return address, err
}

// judgeAnnounce is the port of the streams of a node under the token's
// authority that has signed the datagram.
func judgeAnnounce(token security.Token, datagram []byte) (port uint16, ok bool) {
	announce, err := wire.DecodeAnnounce(datagram, token.Cluster)
	if err != nil || sha256.Sum256(announce.Authority) != token.CA {
		return 0, false
	}
	leaf, err := x509.ParseCertificate(announce.Certificate)
	if err != nil {
		return 0, false
	}
	authority, err := x509.ParseCertificate(announce.Authority)
	if err != nil {
		return 0, false
	}
	shown := tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf, authority}}
	if security.JoinClientConfig(token, nil).VerifyConnection(shown) != nil {
		return 0, false
	}
	id, err := security.Peer(shown)
	public, isEd25519 := leaf.PublicKey.(ed25519.PublicKey)
	return announce.Port, err == nil && id.Node == announce.From && isEd25519 && wire.VerifyAnnounce(datagram, public)
}
