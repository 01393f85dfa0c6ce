package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

func ballotTo(b repository.EpochBallot) *belfryv1.EpochBallot {
	return &belfryv1.EpochBallot{Round: b.Round, Node: b.Node[:]}
}

func ballotFrom(b *belfryv1.EpochBallot) (ballot repository.EpochBallot, err error) {
	ballot.Round = b.GetRound()
	if b == nil {
		return ballot, nil
	}
	if len(b.GetNode()) != len(ballot.Node) {
		return ballot, fmt.Errorf("%w: a ballot of a node with %d bytes; want %d", belfry.ErrUsage, len(b.GetNode()), len(ballot.Node))
	}
	copy(ballot.Node[:], b.GetNode())
	return ballot, nil
}

func letterTo(l repository.Letter) *belfryv1.TakeOverRequest {
	return &belfryv1.TakeOverRequest{
		Kind: uint32(l.Kind), Target: l.Target, Ballot: ballotTo(l.Ballot), Accepted: ballotTo(l.Accepted),
		HeldEpoch: l.Held.Epoch, HeldBallot: uint64(l.Held.Ballot), HeldGeneration: l.Held.Generation, HeldDigest: l.Held.Digest[:],
		Repository: l.Held.Repository[:], Document: l.Document, Value: l.Value, Lost: l.Lost, Seen: uuidBytes(l.Seen),
	}
}

// letterFrom checks the form; what it says is judged by the machine.
func letterFrom(req *belfryv1.TakeOverRequest) (l repository.Letter, err error) {
	kind := repository.LetterKind(req.GetKind())
	if req.GetKind() > uint32(repository.LetterChosen) || kind < repository.LetterAsk {
		return l, fmt.Errorf("%w: a letter of kind %d; 1 to %d", belfry.ErrUsage, req.GetKind(), repository.LetterChosen)
	}
	l = repository.Letter{Kind: kind, Target: req.GetTarget(), Document: req.GetDocument(), Value: req.GetValue(), Lost: req.GetLost()}
	l.Held = repository.Version{Epoch: req.GetHeldEpoch(), Ballot: repository.Ballot(req.GetHeldBallot()), Generation: req.GetHeldGeneration()}
	if len(req.GetRepository()) != len(l.Held.Repository) || len(req.GetHeldDigest()) != len(l.Held.Digest) {
		return l, fmt.Errorf("%w: a letter with a repository of %d and a digest of %d bytes", belfry.ErrUsage, len(req.GetRepository()), len(req.GetHeldDigest()))
	}
	copy(l.Held.Repository[:], req.GetRepository())
	copy(l.Held.Digest[:], req.GetHeldDigest())
	if l.Seen, err = uuidsFrom(req.GetSeen()); err != nil {
		return l, err
	}
	if l.Ballot, err = ballotFrom(req.GetBallot()); err != nil {
		return l, err
	}
	l.Accepted, err = ballotFrom(req.GetAccepted())
	return l, err
}

// What this member has promised and accepted of the next epoch is one file in the
// state directory: a line, and behind it the document's own bytes.
const (
	epochName  = "epoch"
	epochMagic = "belfry-epoch-1"
)

func writeEpoch(state string, s repository.EpochState) error {
	data := fmt.Appendf(nil, "%s %d %d %s %d %s %t %x\n", epochMagic, s.Target, s.Promised.Round, s.Promised.Node, s.Accepted.Round, s.Accepted.Node,
		s.Chosen, sha256.Sum256(s.Value))
	return security.ReplaceFile(filepath.Join(state, epochName), append(data, s.Value...))
}

// readEpoch refuses what it does not understand: who has forgotten a promise must not
// go on.
func readEpoch(state string) (s repository.EpochState, err error) {
	path := filepath.Join(state, epochName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		line, value, _ := bytes.Cut(data, []byte("\n"))
		if s, err = parseEpoch(string(line)); err == nil && len(value) > 0 {
			s.Value = value
		}
		if sum := sha256.Sum256(value); err == nil && !strings.HasSuffix(string(line), " "+hex.EncodeToString(sum[:])) {
			err = fmt.Errorf("the document does not have its SHA-256")
		}
	}
	if err != nil {
		return s, fmt.Errorf("%w: what this member has promised about the repository can not be read from %s: %w; have the member removed, and let it join anew", belfry.ErrRestricted, path, err)
	}
	return s, nil
}

func parseEpoch(line string) (s repository.EpochState, err error) {
	fields := strings.Fields(line)
	if len(fields) != 8 || fields[0] != epochMagic {
		return s, fmt.Errorf("its first line is not one of %s", epochMagic)
	}
	var problems []error
	number := func(text string) uint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		problems = append(problems, err)
		return n
	}
	name := func(text string) belfry.NodeID {
		id, err := belfry.ParseNodeID(text)
		problems = append(problems, err)
		return id
	}
	s.Target = number(fields[1])
	s.Promised = repository.EpochBallot{Round: number(fields[2]), Node: name(fields[3])}
	s.Accepted = repository.EpochBallot{Round: number(fields[4]), Node: name(fields[5])}
	s.Chosen, err = strconv.ParseBool(fields[6])
	return s, errors.Join(append(problems, err)...)
}
